"""benchmark.read."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..core.errors import DataError
from ..core.seeding import generator
from ..data import classes
from ..data.hub import load_hub
from ..data.images import Images, from_files
from .builtin import BUILT_IN
from .locate import Found, Located, explain, locate
from .protocol import KNOWN, MEASURED, Benchmark

# Reading ---------------------------------------------------------------------------------------------------------------------


def find(
    benchmark: Benchmark,
    roots: Sequence[Path],
    size: int = 0,
    groups: Collection[str] = MEASURED,
    *,
    crop: float = 0.0,
    most: Mapping[str, int] | None = None,
    seed: int = 0,
    hub: bool = False,
) -> dict[str, tuple[str, Images]]:
    """All sets of `groups` by name, with their group, as squares of `size` pixels (0, and crop 0: the protocol's).

    `most` cuts every set of a group to so many images, drawn by `seed`. Warns of each set that is not the protocol's own. DataError
    lists all that is missing, where it was looked for, and where to get it, before any picture is read.
    """
    located = locate(benchmark, roots, groups, hub=hub)
    if located.missing:
        raise DataError(explain(located, roots))
    return read_all(located, size, crop=crop, most=most, seed=seed)


def read_all(
    located: Located,
    size: int = 0,
    *,
    crop: float = 0.0,
    most: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, tuple[str, Images]]:
    """The sets that were found, as `find` has them."""
    for remark in [remark for found in located.found for remark in found.remarks]:
        warnings.warn(f"{located.benchmark.name}: {remark}.", stacklevel=3)
    cut = most or {}
    return {
        found.set.name: (
            found.set.group,
            read(found, located.benchmark, size, crop=crop, most=cut.get(found.set.group, 0), seed=seed),
        )
        for found in located.found
    }


def read(
    found: Found, benchmark: Benchmark, size: int = 0, *, crop: float = 0.0, most: int = 0, seed: int = 0
) -> Images:
    """The images of a set that was found, as `find` has them."""
    size, crop = size or benchmark.size, crop or benchmark.crop
    if size < 1 or not 0 < crop <= 1:
        raise DataError(
            f"The size is in pixels, and crop a share above 0 and not above 1; they are {size} and {crop}."
        )
    item, resized = found.set, round(size / crop)
    if item.builtin:
        images = BUILT_IN[item.builtin](resized, item.count)
    elif found.files:
        files, labels = found.files, found.labels
        if 0 < most < len(files):
            rows = (
                torch.randperm(len(files), generator=generator(seed, "most", item.name))[:most]
                .sort()
                .values.tolist()
            )
            files, labels = tuple(files[row] for row in rows), tuple(labels[row] for row in rows)
        images = from_files(
            item.name, files, labels, benchmark.classes if item.group in KNOWN else (), resized
        )
    else:
        train, test = load_hub(item.hub, resized)
        images = train if item.group == "train" else test
        if item.group in KNOWN:
            images = classes.renamed(images, benchmark.classes)
        if item.count and len(images) != item.count:
            warnings.warn(
                f"hub:{item.hub} has {len(images)} images, the protocol {item.count}.", stacklevel=2
            )
    if 0 < most < len(images):
        images = images.subset(
            torch.randperm(len(images), generator=generator(seed, "most", item.name))[:most].sort().values
        )
    images = replace(images, name=item.name) if item.group in KNOWN else images.as_ood(item.name)
    return _middle(images, size) if size < resized else images


def _middle(images: Images, size: int) -> Images:
    """The middle of every image, `size` pixels wide."""
    start = (images.size - size) // 2
    part = slice(start, start + size)
    return replace(images, size=size, read=lambda index: images.read(index)[..., part, part])
