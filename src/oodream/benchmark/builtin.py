"""benchmark.builtin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..core.seeding import generator
from ..data import builtin
from ..data.holdout import PSEUDO_OOD
from ..data.images import Images, from_array


def _fashion(split: str, chosen: Sequence[str], last: bool = False) -> Callable[[int, int], Images]:
    """The first (or last) `count` images in a fixed random order."""

    def make(size: int, count: int) -> Images:
        images = builtin.fashion(split, chosen, size=size)
        rows = torch.randperm(len(images), generator=generator(0, "fashion", split))
        part = rows[-count:] if last else rows[: count or len(images)]
        return images.subset(part.sort().values)

    return make


def _disturbed(name: str) -> Callable[[int, int], Images]:
    """The validation images, disturbed."""

    def make(size: int, count: int) -> Images:
        images = BUILT_IN["fashion-val"](size, count)
        return from_array(
            name,
            PSEUDO_OOD[name][0](images.batch(range(count)), images.labels, generator(0, name)),
            images.labels,
            (),
        )

    return make


def _far(name: str) -> Callable[[int, int], Images]:
    return lambda size, count: builtin.FAR_SETS[name][0](size, count or 1000, 0)


BUILT_IN: dict[str, Callable[[int, int], Images]] = {
    "fashion-train": _fashion("train", builtin.FASHION_ID),
    "fashion-test": _fashion("test", builtin.FASHION_ID),
    "fashion-val": _fashion("test", builtin.FASHION_ID, last=True),
    "fashion-bag": _fashion("test", ("bag",)),
    "fashion-boot": _fashion("test", ("boot",)),
    **{name: _far(name) for name in builtin.FAR_SETS},
    **{name: _disturbed(name) for name in PSEUDO_OOD},
}
