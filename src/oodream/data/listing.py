"""What is known of a split before a picture of it is opened: its pictures' names, labels and classes, and how
they are read.

Folders, the hub and named data sets are first listed, so that faults are known early and pictures that nobody
needs are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DataError, listed
from ..core.seeding import generator
from .images import Files, Images, Source, from_pixels, from_sources

__all__ = ["Encoded", "Listing", "Part", "Pictures", "Pixels", "drawn_rows", "pixel_listing"]


class Pictures(Protocol):
    """Where a listing's pictures come from, by row."""

    def read(self, listing: Listing, size: int, white: float) -> Images:
        """The pictures in the listing's rows; `white` is as in `images.from_files`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures of one split. Picture i is the row `rows[i]` of `pictures` and shows the class
    `classes[labels[i]]`; every class is to have `least` of them.
    """

    name: str
    pictures: Pictures
    rows: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    least: int = 0

    def read(self, size: int, white: float = 0.0) -> Images:
        """The images; DataError where too many are damaged, or a class has too few that are not."""
        images = self.pictures.read(self, size, white)
        _check_counts(images, self.least)
        return images

    @property
    def paths(self) -> list[Path]:
        """The files of the pictures, in order; none where they lie otherwise."""
        pictures = self.pictures
        if not (isinstance(pictures, Encoded) and isinstance(pictures.source, Files)):
            return []
        return [pictures.source(row) for row in self.rows]

    def subset(self, index: Sequence[int]) -> Listing:
        """The pictures at `index`, in that order."""
        return replace(
            self, rows=tuple(self.rows[i] for i in index), labels=tuple(self.labels[i] for i in index)
        )

    def of(self, names: Sequence[str]) -> Listing:
        """The pictures of the classes `names`, which alone are its classes, in the order given."""
        position = {self.classes.index(name): label for label, name in enumerate(names)}
        part = self.subset([i for i, label in enumerate(self.labels) if label in position])
        return replace(part, labels=tuple(position[label] for label in part.labels), classes=tuple(names))

    def at_most(self, n: int, seed: int) -> Listing:
        """At most `n` pictures of each class, as `drawn_rows` says; all where `n` is 0."""
        if n == 0:
            return self
        rows = drawn_rows(torch.tensor(self.labels), self.classes, n, seed).tolist()
        return replace(self.subset(rows), least=min(self.least, n))


def drawn_rows(labels_N: Tensor, classes: Sequence[str], n: int, seed: int) -> Tensor:
    """Rows of at most `n` pictures of each class, in order.

    They are drawn by the seed and the class's name: other classes make no difference.
    """
    parts = []
    for label, name in enumerate(classes):
        rows = (labels_N == label).nonzero().flatten()
        parts.append(rows[torch.randperm(len(rows), generator=generator(seed, "max-per-class", name))[:n]])
    return torch.cat(parts).sort().values


def _check_counts(images: Images, least: int) -> None:
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


# Pictures


@dataclass(frozen=True)
class Encoded:
    """Pictures in files or in bytes: `source` gives a row's, `files` are their names."""

    source: Source
    files: Sequence[str]

    def read(self, listing: Listing, size: int, white: float) -> Images:
        """As `images.from_sources` reads them."""
        files = [self.files[row] for row in listing.rows]
        source = _Picked(self.source, listing.rows)
        return from_sources(listing.name, source, files, listing.labels, listing.classes, size, white)


@dataclass(frozen=True)
class _Picked:
    """Some rows of a source; as a class, and not a function within a function, it can be pickled."""

    source: Source
    rows: Sequence[int]

    def __call__(self, row: int) -> Path | BytesIO:
        return self.source(self.rows[row])


@dataclass(frozen=True, kw_only=True)
class Part:
    """`count` pictures that are decoded together: uint8 (count, H, W, 3), or (count, H, W) in gray."""

    name: str
    count: int
    decode: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Pixels:
    """Pictures of one height and width, in parts. A part is decoded once, and only where a row of it is
    needed.
    """

    parts: tuple[Part, ...]

    def read(self, listing: Listing, size: int, white: float) -> Images:
        """The pictures as squares; `white` has no meaning for pixels of 8 bits."""
        row_N = np.asarray(listing.rows, dtype=np.int64)
        pixels_N3HW: Tensor | None = None
        files = [""] * len(row_N)
        starts = accumulate((part.count for part in self.parts), initial=0)
        for start, part in zip(starts, self.parts, strict=False):
            here = np.flatnonzero((row_N >= start) & (row_N < start + part.count))
            if not len(here):
                continue
            picked = torch.from_numpy(part.decode()[row_N[here] - start])
            picked = picked.permute(0, 3, 1, 2) if picked.ndim == 4 else picked[:, None]
            if pixels_N3HW is None:
                pixels_N3HW = torch.empty((len(row_N), 3, *picked.shape[2:]), dtype=torch.uint8)
            pixels_N3HW[torch.from_numpy(here)] = picked.expand(-1, 3, -1, -1)
            for i in here:
                files[i] = f"{part.name}[{row_N[i] - start}]"
        if pixels_N3HW is None:
            raise DataError(f"{listing.name}: no image found.")
        labels = torch.tensor(listing.labels)
        return from_pixels(listing.name, pixels_N3HW, labels, listing.classes, size, files)


def pixel_listing(
    name: str, images: np.ndarray, labels: Sequence[int] | np.ndarray, classes: Sequence[str]
) -> Listing:
    """A listing of pictures that are at hand: uint8 (N, H, W, 3), or (N, H, W) in gray."""
    part = Part(name=name, count=len(images), decode=lambda: images)
    return Listing(
        name=name,
        pictures=Pixels((part,)),
        rows=tuple(range(len(images))),
        labels=tuple(int(label) for label in labels),
        classes=tuple(classes),
    )
