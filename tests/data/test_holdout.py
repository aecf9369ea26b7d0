"""Validation sets come from training images alone, and never from a class that is trained on."""

from __future__ import annotations

import pytest
import torch

from oodream.core.errors import DataError
from oodream.data.holdout import PSEUDO_OOD, blended, hold_out, inverted, shuffled
from oodream.data.images import from_array

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def train():
    """Image i is filled with i, so that a picture tells where it came from."""
    n = 100
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 8, 8).contiguous()
    return from_array("numbers", pixels, torch.arange(n) % 4, NAMES)


def numbers(images) -> set[int]:
    return set(images.batch(range(len(images)))[:, 0, 0, 0].tolist())


def test_classes_are_left_out_and_images_held_back(train):
    fit, test, sets = hold_out(train, ["b"], 0)
    assert fit.classes == test.classes == ("a", "c", "d")
    for part in (fit, test):
        shown = part.batch(range(len(part)))[:, 0, 0, 0].tolist()
        assert [part.classes[label] for label in part.labels] == [NAMES[i % 4] for i in shown]
    assert numbers(fit) | numbers(test) == {i for i in range(100) if i % 4 != 1}
    assert not numbers(fit) & numbers(test)
    assert len(test) == 15
    assert [(s.name, s.group) for s in sets] == [
        ("left-out", "near"),
        *((name, "far") for name in PSEUDO_OOD),
    ]
    assert numbers(sets[0].images) == {i for i in range(100) if i % 4 == 1}
    assert all((s.images.labels == -1).all() for s in sets)


def test_the_same_seed_gives_the_same_sets(train):
    a, b, c = (hold_out(train, ["b"], seed) for seed in (0, 0, 1))
    assert numbers(a[0]) == numbers(b[0]) != numbers(c[0])
    for one, other in zip(a[2], b[2], strict=True):
        assert torch.equal(one.images.batch(range(15)), other.images.batch(range(15)))


@pytest.mark.parametrize(
    ("classes", "message"),
    [(["e"], "No class is called e; there are a, b"), (["a", "b", "c"], "At least two")],
)
def test_what_cannot_be_left_out(train, classes, message):
    with pytest.raises(DataError, match=message):
        hold_out(train, classes, 0)


def test_classes_of_a_single_image_cannot_be_shared(train):
    single = train.subset(torch.tensor([0, 4, 1, 5, 2, 6, 3]))
    with pytest.raises(DataError, match=r"fewer than two training images: d\."):
        hold_out(single, ["b"], 0)
    assert len(hold_out(single, ["d"], 0)[1]) == 3


def test_pseudo_ood_images():
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (6, 3, 8, 8), generator=g, dtype=torch.uint8)
    y = torch.tensor([0, 0, 0, 0, 0, 1])
    assert torch.equal(inverted(x, y, g).int() + x.int(), torch.full((6, 3, 8, 8), 255))
    mixed = shuffled(x, y, g)
    assert not torch.equal(mixed, x)
    assert torch.equal(mixed.flatten(2).sort().values, x.flatten(2).sort().values)
    tiles = {
        tuple(t.flatten().tolist())
        for t in x[0].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).reshape(16, -1)
    }
    assert tiles == {
        tuple(t.flatten().tolist())
        for t in mixed[0].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).reshape(16, -1)
    }
    halves = blended(x, y, g)
    assert torch.equal(
        halves[0], ((x[0].int() + x[5].int()) // 2).to(torch.uint8)
    )  # its only stranger is image 5
