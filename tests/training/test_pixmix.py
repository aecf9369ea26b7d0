"""Fractals and mixtures with them, against the definitions, point by point."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from scipy import stats

from oodream.core.seeding import generator
from oodream.training.pixmix import (
    DARKEST,
    ESCAPED,
    PICTURES,
    STEPS,
    WIDTH,
    fractals,
    gallery,
    mix,
    structured,
)
from tests.helpers.training import images

N = 12


def test_a_fractal_is_the_escape_time_of_every_point():
    width, pictures = 9, fractals(3, 9, generator(0, "test"))
    assert pictures.shape == (3, 3, width, width)
    g = generator(0, "test")
    turn, angle, zoom, colour = torch.rand(4, 3, 1, 1, generator=g).double().flatten(1).numpy()
    centre = torch.rand(2, 3, 1, 1, generator=g).double().flatten(1).numpy() - 0.5
    phase, waves = torch.rand(2, 3, 3, 1, 1, generator=g).double().flatten(2).numpy()
    side = np.linspace(-1, 1, width)
    far = 0
    for n in range(3):
        edge = cmath.exp(2j * math.pi * turn[n])
        c = 1.02 * (edge / 2 - edge**2 / 4)
        for row, y in enumerate(side):
            for column, x in enumerate(side):
                z = complex(*centre[:, n]) + (0.3 + 1.2 * zoom[n]) * cmath.exp(2j * math.pi * angle[n]) * (
                    x + 1j * y
                )
                steps = 0
                while steps < STEPS and abs(z) < ESCAPED:
                    z, steps = z**2 + c, steps + 1
                soon = steps + 1 - math.log2(math.log(max(abs(z), ESCAPED)) / math.log(ESCAPED))
                where = phase[n] + (1 + 3 * waves[n]) * (colour[n] + soon / STEPS)
                expected = 0.5 + 0.5 * np.cos(2 * math.pi * where)
                far += np.abs(pictures[n, :, row, column].numpy() - expected).max() > 0.02
    assert far <= 2, "beside the set's edge float32 may count another step"


def test_the_gallery_is_one_and_full_of_structure():
    pictures = gallery()
    assert pictures.shape == (PICTURES, 3, WIDTH, WIDTH)
    assert gallery() is pictures
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    detail = (pictures[..., 1:] - pictures[..., :-1]).abs().mean((1, 2, 3))
    assert (detail > 0.005).float().mean() > 0.9
    assert len(torch.unique((pictures.mean((2, 3)) * 50).round(), dim=0)) > 0.9 * PICTURES


def test_mixtures_are_the_published_sums_and_products():
    """Pixel by pixel, with the weights that the same random numbers give; these are Beta's."""
    x, y = torch.rand(2, 400, 3, 2, 2, generator=generator(0, "images"))
    result = mix(x, y, generator(1, "test"))
    g = generator(1, "test")
    uniform = torch.rand(3, 400, 1, 1, 1, generator=g).double().flatten(1).numpy()
    between, add = (torch.rand(2, 400, generator=g) < 0.5).numpy()
    large, small = uniform[0] ** (1 / 3), 1 - uniform[1:] ** (1 / 3)
    assert stats.kstest(large, stats.beta(3, 1).cdf).pvalue > 0.01
    assert stats.kstest(small.ravel(), stats.beta(1, 3).cdf).pvalue > 0.01
    for n in range(400):
        a, b = (large[n], small[1, n]) if between[n] else (1 + small[0, n], -small[1, n])
        p, q = x[n].double().numpy(), y[n].double().numpy()
        total = (a * (p * 2 - 1) + b * (q * 2 - 1) + 1) / 2
        expected = total if add[n] else (2 * p) ** a * (2 * q) ** b / 2
        np.testing.assert_allclose(result[n].numpy(), np.clip(expected, 0, 1), atol=1e-5)
    assert 0.4 < between.mean() < 0.6
    assert 0.4 < add.mean() < 0.6


def test_mixtures_stay_between_black_and_white():
    black = torch.zeros(64, 3, 4, 4)
    for x in (black, 1 - black):
        for y in (black, black + DARKEST / 10, 1 - black):
            result = mix(x, y, generator(0, "test"))
            assert result.isfinite().all()
            assert result.min() >= 0
            assert result.max() <= 1


@pytest.mark.parametrize("size", [16, 40])
def test_no_image_is_as_it_was_and_fractals_show_in_all(size):
    data = images(N, size) if size != 16 else images(N)
    rows = torch.arange(N)
    result = structured(data, rows, generator(0, "test"))
    assert result.shape == data.batch(rows).shape
    assert result.dtype == torch.uint8
    assert torch.equal(result, structured(data, rows, generator(0, "test")))
    changed = (result != data.batch(rows)).flatten(1).float().mean(1)
    assert (changed > 0.2).all()
    assert not torch.equal(result, structured(data, rows, generator(1, "test")))
