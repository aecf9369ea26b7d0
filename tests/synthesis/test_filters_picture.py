"""Filters that look at a band of confidence, at blanks and at duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oodream.core.registry import make
from oodream.core.seeding import generator
from oodream.run.stages.images import images_together
from oodream.synthesis.filters.blank import Blank
from oodream.synthesis.filters.confident import Confident
from oodream.synthesis.filters.duplicate import Duplicate
from tests.synthesis.test_filters import IMAGES, Baseline, Y


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [
        # Of the class 0.97, 0.90, 0.25, 0.004; the largest 0.97, 0.90, 0.5, 0.995.
        (0.0, 1.0, [True] * 4),
        (0.01, 1.0, [True, True, True, False]),
        (0.0, 0.95, [False, True, True, False]),
        (0.3, 0.95, [False, True, False, False]),
        (0.2, 0.6, [False, False, True, False]),
        (0.3, 0.4, [False] * 4),
    ],
)
def test_confident_keeps_the_middle_band(low, high, kept):
    assert Confident(low=low, high=high)(IMAGES, Y, Baseline()).tolist() == kept


def test_blank_measures_the_channel_that_varies_most():
    x = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    x[1, 2, :, ::2] += 10  # deviates by 5 in blue alone
    x[2, :, 0, 0] += 8  # by about 1
    x[3] = torch.randint(256, (3, 8, 8), dtype=torch.uint8, generator=generator(0, "noise"))
    y, baseline = torch.zeros(4, dtype=torch.long), Baseline()
    assert Blank(contrast=4.0)(x, y, baseline).tolist() == [False, True, False, True]
    assert Blank(contrast=6.0)(x, y, baseline).tolist() == [False, False, False, True]
    assert Blank(contrast=0.5)(x, y, baseline).tolist() == [False, True, True, True]
    assert Blank(contrast=0)(x, y, baseline).all()


def by_hand(x, y, distance: float) -> list[bool]:
    """Thumbnails of 16 x 16 block means, compared one by one."""
    n, side = len(x), x.shape[-1] // 16
    thumbs = x.numpy().astype(float).reshape(n, 3, 16, side, 16, side).mean((3, 5))
    keep: list[bool] = []
    for i in range(n):
        earlier = [j for j in range(i) if keep[j] and y[j] == y[i]]
        keep.append(all(np.sqrt(((thumbs[i] - thumbs[j]) ** 2).mean()) >= distance for j in earlier))
    return keep


def test_duplicates_are_those_of_a_plain_loop():
    g = generator(0, "pictures")
    x = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=g)
    for i in range(20, 40):  # each repeats an earlier one, more or less
        noise = torch.randint(-3 * (i - 19), 3 * (i - 19) + 1, x[0].shape, generator=g)
        x[i] = (x[i - 20].int() + noise).clamp(0, 255).byte()
    y = torch.arange(40) % 4
    for distance in (1.0, 5.0, 12.0):
        kept = Duplicate(distance=distance)(x, y, Baseline())
        assert kept.tolist() == by_hand(x, y, distance)
        assert kept[:20].all()
    assert 0 < kept[20:].sum() < 20


def test_only_images_of_one_class_are_duplicates():
    x = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    y, baseline = torch.tensor([0, 1, 0, 1]), Baseline()
    assert Duplicate()(x, y, baseline).tolist() == [True, True, False, False]
    assert Duplicate(distance=0)(x, y, baseline).all()


def test_a_dropped_image_shadows_none():
    """Levels 0, 4, 8: the second is too near to the first, and the third is near to the second alone."""
    x = torch.tensor([0, 4, 8], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 8, 8)
    assert Duplicate(distance=6)(x, torch.zeros(3).long(), Baseline()).tolist() == [True, False, True]


def test_a_filter_that_compares_is_given_a_class_at_once():
    y = torch.tensor([1, 0, 1] * 400)
    together = images_together(y, compares=True)
    assert [y[rows].unique().tolist() for rows in together] == [[0], [1]]
    assert torch.cat(list(together)).sort().values.tolist() == list(range(1200))
    parts = images_together(y, compares=False)
    assert torch.cat(list(parts)).tolist() == list(range(1200))
    assert max(map(len, parts)) == 512


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("confident", "low", -0.1),
        ("confident", "low", 0.95),
        ("confident", "high", 1.1),
        ("blank", "contrast", -1.0),
        ("duplicate", "distance", 256.0),
    ],
)
def test_bad_options_are_refused_by_name(name, option, value):
    with pytest.raises(ValueError, match=rf"filter '{name}': {option} must be"):
        make("filters", name, **{option: value})
