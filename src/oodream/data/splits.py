"""Training and test images: what splits are called, and how a set without them is split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.seeding import generator
from .images import Images
from .listing import Listing, drawn_rows

__all__ = ["HELD_OUT", "TEST_SHARE", "TRAIN", "held_out_rows", "read_splits", "split"]

TEST_SHARE = 0.2
TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval")  # the first that is there is used


def read_splits(
    train: Listing,
    test: Listing | None,
    size: int,
    *,
    seed: int,
    test_share: float = TEST_SHARE,
    white: float = 0.0,
    max_per_class: int = 0,
) -> tuple[Images, Images]:
    """(training, test) images of listings.

    Without `test`, every class of `train` gives `test_share` of its images. At most `max_per_class` training
    images of each class are kept, drawn by the seed; 0 keeps all.
    """
    if test is not None:
        images = train.at_most(max_per_class, seed).read(size, white)
        return images, test.read(size, images.white)
    images, held_out = split(train.read(size, white), seed, test_share)
    if max_per_class:
        images = images.subset(drawn_rows(images.labels, images.classes, max_per_class, seed))
    return images, held_out


def split(images: Images, seed: int, test_share: float = TEST_SHARE) -> tuple[Images, Images]:
    """(training, test), stratified: every class has at least one image on either side."""
    test = held_out_rows(images.labels, images.classes, seed, test_share)
    return images.subset(~test, f"{images.name}-train"), images.subset(test, f"{images.name}-test")


def held_out_rows(
    labels_N: Tensor, classes: Sequence[str], seed: int, test_share: float = TEST_SHARE
) -> Tensor:
    """Which of N images with these labels `split` makes test images: boolean (N,)."""
    test = torch.zeros(len(labels_N), dtype=torch.bool)
    for label, name in enumerate(classes):
        rows = (labels_N == label).nonzero().flatten()
        count = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        test[rows[torch.randperm(len(rows), generator=generator(seed, "split", name))[:count]]] = True
    return test
