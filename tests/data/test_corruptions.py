"""Shifted sets: corruptions of test images."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from oodream.core.seeding import generator
from oodream.data.corruptions import CORRUPTIONS, corrupted
from oodream.data.images import from_array


@pytest.fixture(scope="module")
def images():
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(40, 3, 4, 4, generator=g)
    pixels = (torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear") * 255).to(torch.uint8)
    return from_array("x", pixels, torch.arange(40) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_keeps_labels_and_grows_with_severity(images, kind):
    clean = corrupted(images, kind, 1, 40, 0)
    rows = [images.batch([int(i) for i in range(40)])]
    order = corrupted(images, "brightness", 1, 40, 0).labels
    assert torch.equal(clean.labels, order), "every corruption has the same images"
    assert clean.batch(range(40)).dtype == torch.uint8
    original = (
        corrupted(images, "impulse_noise", 0, 40, 0).batch(range(40)).float()
    )  # severity 0 changes nothing
    assert torch.equal(
        original.flatten(1).sum(1).sort().values, rows[0].float().flatten(1).sum(1).sort().values
    )
    far = [
        (corrupted(images, kind, s, 40, 0).batch(range(40)).float() - original).abs().mean().item()
        for s in range(1, 6)
    ]
    assert far == sorted(far)
    assert 0.05 < far[0] < far[4] < 128


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_a_function_of_its_seed(images, kind):
    same = [corrupted(images, kind, 3, 10, seed).batch(range(10)) for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_shot_noise_is_poissons(images):
    """Mean and variance of single values, over many draws."""
    flat = from_array("flat", torch.full((200, 3, 32, 32), 102, dtype=torch.uint8), torch.zeros(200), ("a",))
    x = corrupted(flat, "shot_noise", 1, 200, 0).batch(range(200)).double() / 255
    assert x.mean().item() == pytest.approx(0.4, abs=0.01)
    assert x.var().item() == pytest.approx(0.4 / 40, rel=0.1)


def test_blur_is_gaussian_and_repeats_the_edge(images):
    sigma = 0.016 * 3 * 32
    x = images.batch(range(40)).double().numpy()
    for axis in (2, 3):
        x = gaussian_filter1d(x, sigma, axis, mode="nearest", radius=math.ceil(3 * sigma))
    rows = torch.randperm(40, generator=generator(0, "corrupted"))
    blurred = corrupted(images, "blur", 3, 40, 0).batch(range(40)).double()
    assert (blurred - torch.from_numpy(x)[rows]).abs().max() < 0.51


def test_a_jpeg_is_as_pillow_reads_it(images):
    rows = torch.randperm(40, generator=generator(0, "corrupted"))
    for pixels, before in zip(
        corrupted(images, "jpeg", 5, 40, 0).batch(range(40)), images.batch(rows), strict=True
    ):
        file = io.BytesIO()
        Image.fromarray(before.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=5)
        assert torch.equal(pixels, torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
