"""The image sets that a protocol can name without a file: parts of the embedded Fashion-MNIST, and images
made by the package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..core.seeding import generator
from ..data import builtin
from ..data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from ..data.holdout import PSEUDO_OOD
from ..data.images import Images, from_array

__all__ = ["BUILT_IN"]


def _fashion(split: str, names: Sequence[str], last: bool = False) -> Callable[[int, int], Images]:
    """The first (or last) `count` images of some classes in a fixed random order, so that two parts of a
    split share none.
    """

    def make(size: int, count: int) -> Images:
        images = builtin.fashion(split, names, size=size)
        rows = torch.randperm(len(images), generator=generator(0, "fashion", split))
        part = rows[-count:] if last else rows[: count or len(images)]
        return images.subset(part.sort().values)

    return make


def _pseudo_ood(name: str) -> Callable[[int, int], Images]:
    """The validation images, changed until they show nothing known."""

    def make(size: int, count: int) -> Images:
        images = BUILT_IN["fashion-val"](size, count)
        change, _ = PSEUDO_OOD[name]
        pixels = change(images.batch(range(len(images))), images.labels, generator(0, name))
        return from_array(name, pixels, images.labels, ())

    return make


def _corrupted(size: int, count: int) -> Images:
    """The embedded test images, each corrupted in one of all ways and severities, which take turns."""
    images = BUILT_IN["fashion-test"](size, count)
    ways = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    rows = [torch.arange(start, len(images), len(ways)) for start in range(len(ways))]
    parts = [
        corrupted(images.subset(part), kind, severity, len(part), 0)
        for part, (kind, severity) in zip(rows, ways, strict=True)
        if len(part)
    ]
    pixels = torch.cat([part.batch(range(len(part))) for part in parts])
    return from_array("fashion-corrupted", pixels, torch.cat([p.labels for p in parts]), images.classes)


def _far(name: str) -> Callable[[int, int], Images]:
    return lambda size, count: builtin.FAR_SETS[name][0](size, count or 1000, 0)


# name -> (width in pixels, number of images) -> images
BUILT_IN: dict[str, Callable[[int, int], Images]] = {
    "fashion-train": _fashion("train", builtin.FASHION_ID),
    "fashion-test": _fashion("test", builtin.FASHION_ID),
    "fashion-corrupted": _corrupted,
    "fashion-val": _fashion("test", builtin.FASHION_ID, last=True),
    "fashion-bag": _fashion("test", ("bag",)),
    "fashion-boot": _fashion("test", ("boot",)),
    **{name: _far(name) for name in builtin.FAR_SETS},
    **{name: _pseudo_ood(name) for name in PSEUDO_OOD},
}
