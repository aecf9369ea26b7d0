"""Training and test images: what splits are called, and how a set without them is split."""

from __future__ import annotations

from typing import Protocol

import torch

from ..core.errors import DataError, listed
from ..core.seeding import generator
from .images import Images

__all__ = ["HELD_OUT", "TEST_SHARE", "TRAIN", "SplitListing", "check_counts", "read_splits", "split"]

TEST_SHARE = 0.2
TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval")  # the first that is there is used


class SplitListing(Protocol):
    """What can be read as one split."""

    def read(self, size: int, white: float = 0.0) -> Images:
        """The images; `white` is as in `images.from_files`."""
        ...


def read_splits(
    train: SplitListing,
    test: SplitListing | None,
    size: int,
    *,
    seed: int,
    test_share: float = TEST_SHARE,
    white: float = 0.0,
) -> tuple[Images, Images]:
    """(training, test) images of what `folders.list_folder` or `hub.list_hub` found."""
    images = train.read(size, white)
    if test is None:
        return split(images, seed, test_share)
    return images, test.read(size, images.white)


def check_counts(images: Images, least: int) -> None:
    """DataError where damaged files left a class, if there are classes, with fewer than `least` images."""
    if not images.classes:
        return
    counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if few := [
        f"{name} ({count})" for name, count in zip(images.classes, counts, strict=True) if count < least
    ]:
        raise DataError(
            f"{images.name}: classes with fewer than {least} readable images: {listed(few)}. "
            "Add or mend some."
        )


def split(images: Images, seed: int, test_share: float = TEST_SHARE) -> tuple[Images, Images]:
    """(training, test), stratified: every class has at least one image on either side."""
    test = torch.zeros(len(images), dtype=torch.bool)
    for label, name in enumerate(images.classes):
        rows = (images.labels == label).nonzero().flatten()
        count = min(max(1, round(test_share * len(rows))), len(rows) - 1)
        test[rows[torch.randperm(len(rows), generator=generator(seed, "split", name))[:count]]] = True
    return images.subset(~test, f"{images.name}-train"), images.subset(test, f"{images.name}-test")
