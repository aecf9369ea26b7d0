"""What an image set is, and how a picture enters one: as a uint8 RGB square.

Every image enters through :func:`to_rgb` and :func:`square`, so two sets can never differ by how they were read.
Label -1 marks an out-of-distribution image. Where sets come from is the business of `data` and `builtin`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import chain
from pathlib import Path

import torch

from ..core.errors import DataError, listed
from ..core.progress import progress
from ..core.types import OOD
from .preprocess import read_image

MAX_UNREADABLE = 0.05
IN_MEMORY = 2 << 30  # bytes of pixels; a larger set is read from its files batch by batch


@dataclass(frozen=True, kw_only=True)
class Images:
    """A set of N square RGB images that can be read by index: `batch(index) -> uint8 (B, 3, S, S)`.

    `labels` is int64 (N,), -1 for OOD; `classes` names the labels; `files` says where each image came from.
    """

    name: str
    size: int
    labels: torch.Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[int]], torch.Tensor] = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Images at `index` as uint8 (B, 3, S, S)."""
        return self.read(index.tolist() if isinstance(index, torch.Tensor) else index)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(images, labels) in order, `size` at a time."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.batch(range(start, stop)), self.labels[start:stop]

    def subset(self, index: torch.Tensor, name: str | None = None) -> Images:
        """The images at `index` (rows, or a mask), in that order, read from the same place."""
        rows = torch.arange(len(self))[index].tolist()
        return replace(
            self, name=name or self.name, labels=self.labels[index],
            files=tuple(self.files[i] for i in rows), read=lambda part: self.read([rows[i] for i in part]),
        )  # fmt: skip

    def as_ood(self, name: str | None = None) -> Images:
        """The same images as an OOD set: every label -1, no classes."""
        return replace(self, name=name or self.name, labels=torch.full_like(self.labels, OOD), classes=())

    def identity(self) -> str:
        """A hash that changes with the images: of the files' paths, lengths and times where all are files, else of the pixels."""
        try:
            told = [(file, (stat := Path(file).stat()).st_size, stat.st_mtime_ns) for file in self.files]
        except OSError:
            return self.fingerprint()
        told_of_all = json.dumps([self.size, self.classes, self.labels.tolist(), told])
        return hashlib.blake2b(told_of_all.encode(), digest_size=16).hexdigest()

    def fingerprint(self) -> str:
        """A hash of pixels, labels and class names; equal sets have equal fingerprints wherever they are stored."""
        digest = hashlib.blake2b(f"{self.size}{self.classes}".encode(), digest_size=16)
        for images, labels in self.batches(1024):
            digest.update(images.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images that are measured together: `group` is "near" or "far" for OOD sets, "control", or "id"."""

    name: str
    group: str
    images: Images


def from_array(name: str, images: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> Images:
    """An `Images` over a uint8 tensor (N, 3, S, S) held in memory."""
    return Images(
        name=name, size=images.shape[-1], labels=labels.long(), classes=tuple(classes),
        files=tuple(f"{name}[{i}]" for i in range(len(images))), read=lambda index: images[list(index)],
    )  # fmt: skip


def from_files(
    name: str, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], size: int
) -> Images:
    """The images in `files`, without the broken ones (warned by name); DataError when more than 5 % are broken.

    Every file is read once to know that it is whole. The pixels are kept when all fit in 2 GiB; else a batch reads its files again.
    """
    return from_sources(name, lambda row: files[row], [str(f) for f in files], labels, classes, size)


def from_sources(
    name: str, source: Callable[[int], Path | BytesIO], files: Sequence[str],
    labels: Sequence[int], classes: Sequence[str], size: int,
) -> Images:  # fmt: skip
    """`from_files` for anything that gives a row's file or bytes; `files` are their names."""
    if not files:
        raise DataError(f"{name}: no image found. Expected files such as .png or .jpg.")
    shape = (3, size, size)
    pixels = (
        torch.empty((len(files), *shape), dtype=torch.uint8)
        if len(files) * 3 * size**2 <= IN_MEMORY
        else None
    )

    def problem(row: int) -> str | None:
        try:
            image = read_image(source(row), size)
        except OSError as error:
            return f"{files[row]}: {error}"
        if pixels is not None:
            pixels[row] = image
        return None

    parts = (range(start, min(start + 4096, len(files))) for start in range(0, len(files), 4096))
    with ThreadPoolExecutor() as pool:
        # In parts, because a pool holds an object for everything it was handed.
        problems: Iterable[str | None] = chain.from_iterable(pool.map(problem, part) for part in parts)
        if len(files) > 10_000:
            problems = progress(problems, total=len(files), what=f"reading {name}", unit="image")
        found = list(problems)
    if broken := [text for text in found if text is not None]:
        message = f"{name}: {len(broken)} of {len(files)} images cannot be read:\n  " + listed(broken, "\n  ")
        if len(broken) > MAX_UNREADABLE * len(files):
            raise DataError(f"{message}\nThat is more than {MAX_UNREADABLE:.0%}; mend or remove these files.")
        warnings.warn(f"{message}\nThey are left out.", stacklevel=3)
    kept = [row for row, text in enumerate(found) if text is None]

    def read(index: Sequence[int]) -> torch.Tensor:
        rows = [kept[i] for i in index]
        if pixels is not None:
            return pixels[rows]
        batch = torch.empty((len(rows), *shape), dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for slot, image in enumerate(pool.map(lambda row: read_image(source(row), size), rows)):
                batch[slot] = image
        return batch

    return Images(
        name=name, size=size, labels=torch.tensor([labels[row] for row in kept]), classes=tuple(classes),
        files=tuple(files[row] for row in kept), read=read,
    )  # fmt: skip
