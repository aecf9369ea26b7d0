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

import numpy as np
import torch
from PIL import Image, ImageOps

from .store import progress
from .types import OOD

MAX_UNREADABLE = 0.05
IN_MEMORY = 2 << 30  # bytes of pixels; a larger set is read from its files batch by batch
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow names these, but cannot read them by itself
SUFFIXES = frozenset(ext for ext, name in Image.registered_extensions().items() if name in Image.OPEN and name not in NOT_PICTURES)


class DataError(ValueError):
    """An image set cannot be used; the message says which, why and what to do."""


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """The picture as people see it in 8-bit RGB: EXIF rotation applied, alpha over `background`, deep greyscale scaled.

    Integers of 16 and 32 bits and floats are taken as fractions of the smallest full scale their maximum fits: 1 (floats only),
    255, 65535, else the maximum itself. So 8-bit values stored in 16 bits keep their brightness (a true 16-bit picture below
    256 would be black anyway), while 12-bit values are dark: stretch them to 16 bits first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        values = np.where(np.isfinite(values), values, 0).clip(0)
        peak = values.max()
        scale = next((s for s in ((1, 255, 65535) if image.mode == "F" else (255, 65535)) if peak <= s), peak)
        return Image.fromarray(np.rint(values * (255 / scale)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, background)
        canvas.alpha_composite(rgba)
        return canvas.convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, `size` pixels wide: the shorter side is resized (bicubic, antialiased), the rest is cut away.

    First to its width, then to its height, whatever order Pillow would take: so any other program can do the same to the bit.
    """
    (w, h), side = image.size, min(image.size)
    left, top = (w - side) / 2, (h - side) / 2
    narrow = image.resize((size, h), Image.Resampling.BICUBIC, box=(left, 0, left + side, h))
    return narrow.resize((size, size), Image.Resampling.BICUBIC, box=(0, top, size, top + side))


def read_image(source: Path | BytesIO, size: int) -> torch.Tensor:
    """One image (of an animation the first frame) as uint8 (3, size, size). Raises OSError when it is not a whole image."""
    try:
        with Image.open(source) as image:
            rgb = square(to_rgb(image), size)
    except Exception as error:  # on damaged bytes Pillow's readers raise nearly anything
        raise OSError(str(error) or type(error).__name__) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


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


def from_array(name: str, images: torch.Tensor, labels: torch.Tensor, classes: Sequence[str]) -> Images:
    """An `Images` over a uint8 tensor (N, 3, S, S) held in memory."""
    return Images(
        name=name, size=images.shape[-1], labels=labels.long(), classes=tuple(classes),
        files=tuple(f"{name}[{i}]" for i in range(len(images))), read=lambda index: images[list(index)],
    )  # fmt: skip


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted by path, hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def from_files(name: str, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str], size: int) -> Images:
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
    pixels = torch.empty((len(files), *shape), dtype=torch.uint8) if len(files) * 3 * size**2 <= IN_MEMORY else None

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


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first ten items, and how many more there are."""
    shown = list(items)
    return separator.join(shown[:10]) + (f"{separator}… and {len(shown) - 10} more" if len(shown) > 10 else "")
