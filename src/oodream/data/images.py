"""What an image set is, and how a list of files or encoded pictures becomes one.

Label -1 marks an out-of-distribution image. Where sets come from is the business of the other modules here.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import DataError, did_you_mean, listed, shown
from ..core.progress import progress
from ..core.threads import mapped
from ..core.types import OOD
from ..runtime.rgb import Depth, white_of
from .preprocess import read_image, read_or_measure, resize_all
from .scan import MAX_UNREADABLE

__all__ = ["Files", "ImageSet", "Images", "Source", "from_array", "from_files", "from_pixels", "from_sources"]

IN_MEMORY = 2 << 30  # bytes of pixels; a larger set is read from its files batch by batch
DARK = 32  # a picture without a brighter value (of 255) is nearly black
LONG = 10_000  # files that are worth a progress line
GROUPS = ("near", "far", "control", "shift", "id", "train", "test", "val", "val-ood", "outliers")

Source = Callable[[int], Path | BytesIO]
# Of a first reading: why a picture cannot be read, or a deep one's depth, or its darkest and brightest value.
Result = str | Depth | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Images:
    """A set of N square RGB images that can be read by index: `batch(index) -> uint8 (B, 3, S, S)`.

    `labels` is int64 (N,), -1 for OOD; `classes` names the labels; `files` says where each image came from.
    `white` is the value of white in the set's deep pictures (16 or 32 bits, floats); 0 where it has none.
    A set can be pickled, as every `read` that is made here can.
    """

    name: str
    size: int
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[int]], Tensor] = field(repr=False)
    white: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | Sequence[int]) -> Tensor:
        """Images at `index` as uint8 (B, 3, S, S)."""
        return self.read(index.tolist() if isinstance(index, Tensor) else index)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) in order, `size` at a time."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.batch(range(start, stop)), self.labels[start:stop]

    def subset(self, index: Tensor, name: str | None = None) -> Images:
        """The images at `index` (rows, or a mask), in that order, read from the same place."""
        rows = torch.arange(len(self))[index].tolist()
        return replace(
            self, name=name or self.name, labels=self.labels[index], files=tuple(self.files[i] for i in rows),
            read=_Rows(self.read, rows),
        )  # fmt: skip

    def joined(self, others: Images) -> Images:
        """These images, and then others of the same size and classes."""
        return replace(
            self, labels=torch.cat([self.labels, others.labels]), files=self.files + others.files,
            read=_Joined(self.read, others.read, len(self)),
        )  # fmt: skip

    def as_ood(self, name: str | None = None) -> Images:
        """The same images as an OOD set: every label -1, no classes."""
        return replace(self, name=name or self.name, labels=torch.full_like(self.labels, OOD), classes=())

    def identity(self) -> str:
        """A hash that changes with the images: of the files' paths, lengths and times where all are files,
        else of the pixels.
        """
        try:
            stats = [(file, (stat := Path(file).stat()).st_size, stat.st_mtime_ns) for file in self.files]
        except OSError:
            return self.fingerprint()
        # A picture's pixels depend on `white` where it is deep; elsewhere hashes stay as they were.
        facts = [self.size, self.classes, self.labels.tolist(), stats, *([self.white] if self.white else [])]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()

    def fingerprint(self) -> str:
        """A hash of pixels, labels and class names; equal sets have equal ones wherever they are stored."""
        digest = hashlib.blake2b(f"{self.size}{self.classes}".encode(), digest_size=16)
        for images, labels in self.batches(1024):
            digest.update(images.numpy().tobytes())
            digest.update(labels.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images that are measured together; `group` is "near" or "far" for OOD, "shift", "control" or "id", or
    another one of GROUPS for what protocols and audits name so.

    `about` says in a few words what they show, where that is known. Raises DataError for another group.
    """

    name: str
    group: str
    images: Images
    about: str = ""

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            hint = did_you_mean(self.group, GROUPS)
            raise DataError(
                f"The image set {self.name!r} has the group {self.group!r}, which is none.{hint} "
                f'Unknown images are "near" or "far"; there are {", ".join(GROUPS)}.'
            )


def from_array(name: str, images: Tensor, labels: Tensor, classes: Sequence[str]) -> Images:
    """An `Images` over a uint8 tensor (N, 3, S, S) held in memory."""
    return Images(
        name=name, size=images.shape[-1], labels=labels.long(), classes=tuple(classes),
        files=tuple(f"{name}[{i}]" for i in range(len(images))), read=_Pixels(images),
    )  # fmt: skip


def from_pixels(
    name: str, pixels_N3HW: Tensor, labels: Tensor, classes: Sequence[str], size: int, files: Sequence[str]
) -> Images:
    """An `Images` over uint8 pictures of one height and width in memory, as squares of `size` pixels.

    The squares are kept where all fit in 2 GiB; else a batch is resized when it is read.
    """
    read: Callable[[Sequence[int]], Tensor] = _Pixels(pixels_N3HW)
    if pixels_N3HW.shape[2:] != (size, size):
        read = _Resized(pixels_N3HW, size)
        if len(pixels_N3HW) * 3 * size**2 <= IN_MEMORY:
            read = _Pixels(read(range(len(pixels_N3HW))))
    return Images(
        name=name, size=size, labels=labels.long(), classes=tuple(classes), files=tuple(files), read=read
    )


def from_files(
    name: str,
    files: Iterable[Path],
    labels: Sequence[int],
    classes: Sequence[str],
    size: int,
    white: float = 0.0,
) -> Images:
    """The images in `files`, without the damaged ones (warned by name).

    Every file is read once to know that it is whole. The pixels are kept when all fit in 2 GiB; else a batch
    reads its files again. `white` is as in `runtime.pictures.to_rgb`; where it is 0, it is found from all
    deep pictures of the set together. Warns where half of the pictures are nearly black.

    Raises DataError where there is no file, or more than 5 % of them are damaged.
    """
    names = tuple(map(str, files))
    return from_sources(name, Files(names), names, labels, classes, size, white)


def from_sources(
    name: str,
    source: Source,
    files: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    size: int,
    white: float = 0.0,
) -> Images:
    """`from_files` for anything that gives a row's file or bytes; `files` are their names."""
    if not files:
        raise DataError(f"{name}: no image found. Expected files such as .png or .jpg.")
    fits = len(files) * 3 * size**2 <= IN_MEMORY
    pixels = torch.empty((len(files), 3, size, size), dtype=torch.uint8) if fits else None
    results = _read_all(_Reader(source, size, white, pixels), range(len(files)), f"reading {name}")
    if deep := [row for row, result in enumerate(results) if isinstance(result, Depth)]:
        white = white_of([result for result in results if isinstance(result, Depth)])
        reader = _Reader(source, size, white, pixels)
        for row, result in zip(deep, _read_all(reader, deep, f"scaling {name}"), strict=True):
            results[row] = result
    broken = [
        f"{shown(files[row])}: {result}" for row, result in enumerate(results) if isinstance(result, str)
    ]
    if broken:
        message = f"{name}: {len(broken)} of {len(files)} images cannot be read:\n  " + listed(broken, "\n  ")
        if len(broken) > MAX_UNREADABLE * len(files):
            raise DataError(f"{message}\nThat is more than {MAX_UNREADABLE:.0%}; mend or remove these files.")
        warnings.warn(f"{message}\n  They are left out.", stacklevel=3)
    kept = [row for row, result in enumerate(results) if isinstance(result, tuple)]
    _warn_of_scale(name, [result for result in results if isinstance(result, tuple)], white)
    return Images(
        name=name, size=size, labels=torch.tensor([labels[row] for row in kept]), classes=tuple(classes),
        files=tuple(files[row] for row in kept), white=white,
        read=_Sources(source, kept, size, white) if pixels is None else _Rows(_Pixels(pixels), kept),
    )  # fmt: skip


def _read_all(read: Callable[[int], Result], rows: Sequence[int], what: str) -> list[Result]:
    """What `read` gives for every row, by several threads."""
    results: Iterable[Result] = mapped(read, rows)
    if len(rows) > LONG:
        results = progress(results, total=len(rows), what=what, unit="image")
    return list(results)


def _warn_of_scale(name: str, ranges: Sequence[tuple[int, int]], white: float) -> None:
    """Warns where half of the pictures are nearly black, or deep and nearly white."""
    scale = f"White is {white:g}; the option `white` sets another value."
    if 2 * (dark := sum(high < DARK for _, high in ranges)) > len(ranges):
        color = "Color pictures of 10 to 14 bits must be stretched to 16 bits before they are read."
        warnings.warn(
            f"{name}: {dark} of {len(ranges)} pictures are nearly black: no value of theirs reaches {DARK} "
            f"of 255. {scale if white else color}",
            stacklevel=4,
        )
    if white and 2 * (light := sum(low > 255 - DARK for low, _ in ranges)) > len(ranges):
        warnings.warn(f"{name}: {light} of {len(ranges)} pictures are nearly white. {scale}", stacklevel=4)


# What gives pixels. These are classes, and not functions within functions, so that they can be pickled.


@dataclass(frozen=True)
class _Pixels:
    """Images held in memory."""

    pixels: Tensor

    def __call__(self, index: Sequence[int]) -> Tensor:
        return self.pixels[list(index)]


@dataclass(frozen=True)
class _Resized:
    """Images held in memory in another size."""

    pixels_N3HW: Tensor
    size: int

    def __call__(self, index: Sequence[int]) -> Tensor:
        pixels_BHW3 = self.pixels_N3HW[list(index)].permute(0, 2, 3, 1).contiguous().numpy()
        return resize_all(pixels_BHW3, self.size)


@dataclass(frozen=True)
class _Rows:
    """Some rows of another reader's images."""

    read: Callable[[Sequence[int]], Tensor]
    rows: Sequence[int]

    def __call__(self, index: Sequence[int]) -> Tensor:
        return self.read([self.rows[i] for i in index])


@dataclass(frozen=True)
class _Joined:
    """`first` images of one reader, and then those of another."""

    read: Callable[[Sequence[int]], Tensor]
    others: Callable[[Sequence[int]], Tensor]
    first: int

    def __call__(self, index: Sequence[int]) -> Tensor:
        mine = [i for i in index if i < self.first]
        both = torch.cat([self.read(mine), self.others([i - self.first for i in index if i >= self.first])])
        ones, others = iter(range(len(mine))), iter(range(len(mine), len(index)))
        return both[[next(ones if i < self.first else others) for i in index]]


@dataclass(frozen=True)
class Files:
    """Files by row. Their names take a fraction of what paths do."""

    files: tuple[str, ...]

    def __call__(self, row: int) -> Path:
        return Path(self.files[row])


@dataclass(frozen=True)
class _Sources:
    """Images that are read from their sources whenever they are asked for."""

    source: Source
    kept: Sequence[int]
    size: int
    white: float

    def __call__(self, index: Sequence[int]) -> Tensor:
        batch = torch.empty((len(index), 3, self.size, self.size), dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for slot, image in enumerate(pool.map(self._read, [self.kept[i] for i in index])):
                batch[slot] = image
        return batch

    def _read(self, row: int) -> Tensor:
        return read_image(self.source(row), self.size, self.white)


@dataclass(frozen=True)
class _Reader:
    """One source's first reading; the pixels are kept where there is room for them."""

    source: Source
    size: int
    white: float
    pixels: Tensor | None

    def __call__(self, row: int) -> Result:
        try:
            image, depth = read_or_measure(self.source(row), self.size, self.white)
        except OSError as error:
            return str(error)
        if image is None:
            assert depth is not None
            return depth
        if self.pixels is not None:
            self.pixels[row] = image
        return int(image.min()), int(image.max())
