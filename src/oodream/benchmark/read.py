"""The image sets of a protocol as pixels: lists, folders, the hub and built-in sets give the same kind of
images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import DataError
from ..core.seeding import generator
from ..data import classes
from ..data.hub import load_hub
from ..data.images import Images, ImageSet, from_files
from .builtin import BUILT_IN
from .explain import explain
from .locate import FoundSet, Located, locate
from .protocol import KNOWN, MEASURED, Protocol

__all__ = ["load_sets", "read_sets"]


def load_sets(
    protocol: Protocol,
    roots: Sequence[Path],
    size: int = 0,
    groups: Collection[str] = MEASURED,
    *,
    crop: float = 0.0,
    max_images: Mapping[str, int] | None = None,
    seed: int = 0,
    hub: bool = False,
) -> list[ImageSet]:
    """All sets of `groups`, in the protocol's order, as squares `size` pixels wide.

    `size` 0 and `crop` 0 are the protocol's own. `max_images` limits every set of a group to so many images,
    drawn by `seed`. With `hub`, sets that are not below a root are read from the hub where the protocol knows
    them there. Each set that is not the protocol's own gives a warning.
    Raises DataError, before any image is read, with all that is missing, where it was looked for and where to
    get it.
    """
    located = locate(protocol, roots, groups, hub=hub)
    if located.missing:
        raise DataError(explain(located))
    return read_sets(located, size, crop=crop, max_images=max_images, seed=seed)


def read_sets(
    located: Located,
    size: int = 0,
    *,
    crop: float = 0.0,
    max_images: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[ImageSet]:
    """`load_sets` of what `locate` has found."""
    for remark in [remark for found in located.found for remark in found.remarks]:
        warnings.warn(f"{located.protocol.name}: {remark}.", stacklevel=3)
    limits = max_images or {}
    return [
        ImageSet(
            name=found.set.name,
            group=found.set.group,
            images=_read_set(
                found,
                located.protocol,
                size,
                crop=crop,
                max_images=limits.get(found.set.group, 0),
                seed=seed,
            ),
        )
        for found in located.found
    ]


def _read_set(
    found: FoundSet, protocol: Protocol, size: int, *, crop: float, max_images: int, seed: int
) -> Images:
    """The images of one set, as `load_sets` reads them; `max_images` 0 reads all."""
    size, crop = size or protocol.size, crop or protocol.crop
    if size < 1 or not 0 < crop <= 1:
        raise DataError(
            f"The size is in pixels, and crop a share above 0 and not above 1; they are {size} and {crop}."
        )
    item, resized = found.set, round(size / crop)
    if item.builtin:
        images = BUILT_IN[item.builtin](resized, item.count)
    elif found.files:
        files, labels = found.files, found.labels
        if 0 < max_images < len(files):  # before they are read
            rows = _drawn(len(files), max_images, seed, item.name).tolist()
            files, labels = tuple(files[row] for row in rows), tuple(labels[row] for row in rows)
        names = protocol.classes if item.group in KNOWN else ()
        images = from_files(item.name, files, labels, names, resized)
    elif found.read:
        images = found.read(resized)
    else:
        images = _from_hub(found, protocol, resized)
    if 0 < max_images < len(images):
        images = images.subset(_drawn(len(images), max_images, seed, item.name))
    images = replace(images, name=item.name) if item.group in KNOWN else images.as_ood(item.name)
    return _middle(images, size) if size < resized else images


def _from_hub(found: FoundSet, protocol: Protocol, size: int) -> Images:
    """The set's split of a data set of the hub, with the protocol's class names."""
    item = found.set
    train, test = load_hub(item.hub, size)
    images = train if item.group == "train" else test
    if item.group in KNOWN:
        images = classes.renamed(images, protocol.classes)
    if item.count and len(images) != item.count:
        warnings.warn(f"hub:{item.hub} has {len(images)} images, the protocol {item.count}.", stacklevel=2)
    return images


def _drawn(count: int, limit: int, seed: int, name: str) -> Tensor:
    """`limit` of `count` rows, sorted, drawn by the seed and the set's name."""
    return torch.randperm(count, generator=generator(seed, "most", name))[:limit].sort().values


def _middle(images: Images, size: int) -> Images:
    """The middle of every image, `size` pixels wide."""
    start = (images.size - size) // 2
    return replace(images, size=size, read=partial(_read_middle, images.read, start, start + size))


def _read_middle(
    read: Callable[[Sequence[int]], Tensor], start: int, stop: int, index: Sequence[int]
) -> Tensor:
    return read(index)[..., start:stop, start:stop]
