"""The files of what a run imagines, images or latents: where they lie, how they are decoded, how they are
read again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from ..core.distributed import Shard
from ..core.errors import DataError, StoreError, shown
from ..core.files import explained, write_bytes
from ..core.sealed import file_hash
from ..core.tensors import load_tensors, tensors_file
from ..core.threads import mapped
from ..core.types import Decoder, Generated, SampledVectors
from ..data.images import Images, from_files
from ..synthesis.decode import decode, tile_size
from ..synthesis.errors import NotFiniteError
from .lacking import check_imagined
from .layout import RECORD, SHARD_FILE, imagined_stage

if TYPE_CHECKING:
    from .artifacts import Run

__all__ = [
    "FORMATS",
    "SHARD",
    "Drawing",
    "GeneratedFiles",
    "ImageFiles",
    "LatentShards",
    "image_file",
    "imagined_images",
    "latent_reader",
    "slug",
]

NOTES = ".drawn-{}.txt"
"""a process's hashes of the images that it has drawn, a line for each, until a record lists them"""
HASH_DIGITS = 32
LONGEST = 200  # bytes of a folder's name
SHARD = 256
"""latents in a file"""
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "png"},
    "jpg": {"format": "jpeg", "quality": 95, "subsampling": 0},
    "webp": {"format": "webp", "lossless": True},
}


@dataclass(frozen=True, kw_only=True)
class GeneratedFiles(ABC):
    """The files of what is decoded from vectors: `path(m)` is where row m lies, or will lie, in `folder`.

    Rows come in blocks, which processes take in turns. Rows of one file follow one another, in one block.
    """

    folder: Path
    vectors: SampledVectors

    @property
    def record(self) -> Path:
        """What each row was made from, one JSON object a line."""
        return self.folder / RECORD

    @abstractmethod
    def path(self, row: int) -> Path:
        """The file of a row."""

    @property
    def paths(self) -> list[Path]:
        """The file of every row, all at once."""
        return list(map(self.path, range(len(self.vectors))))

    @abstractmethod
    def block(self, decoder: Decoder) -> int:
        """Rows that one process decodes at a time."""

    @abstractmethod
    def drawing(self, rows: Tensor) -> Drawing:
        """How rows become what their files hold. It has their vectors, so it can be sent to another
        machine.
        """

    @abstractmethod
    def parts(self, rows: Tensor, decoder: Decoder) -> Sequence[Tensor]:
        """The rows in parts as small as one worker draws them at a time."""

    @abstractmethod
    def write(self, file: Path, data: bytes) -> None:
        """Writes a file, whole or not at all."""

    @abstractmethod
    def decode(self, decoder: Decoder, rows: list[int], into: Path | None = None) -> None:
        """Decodes rows into their files, or each into a file `alone` in another folder; whole or not at all.

        Raises what `synthesis.decode.decode` raises.
        """

    @abstractmethod
    def alone(self, row: int) -> str:
        """The name of a file with this row alone."""

    @abstractmethod
    def is_whole(self, file: Path) -> bool:
        """Whether a file that no record lists yet is as it was drawn."""

    def missing(self, part: Shard, decoder: Decoder) -> list[int]:
        """Those of a part's rows that have no file yet, or, with a warning, one that is damaged."""
        rows = part.rows(len(self.vectors), self.block(decoder)).tolist()
        whole = mapped(self._is_there, (file for file, _ in groupby(rows, self.path)))
        by_file = groupby(rows, self.path)
        return [m for (_, own), there in zip(by_file, whole, strict=True) if not there for m in own]

    def _is_there(self, file: Path) -> bool:
        if not file.exists():
            return False
        if not (whole := self.is_whole(file)):
            warnings.warn(f"{shown(file)} is damaged and made again.", stacklevel=2)
        return whole

    def forget_notes(self) -> None:
        """Removes what was noted of files while they were drawn: a record lists them now."""
        for notes in self.folder.glob(NOTES.format("*")):
            notes.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class ImageFiles(GeneratedFiles):
    """An image for every row, in a folder for each of the classes `names`."""

    names: Sequence[str]
    format: str = "png"

    def path(self, row: int) -> Path:
        return self._folders[int(self.vectors.y_M[row])] / self.alone(row)

    @cached_property
    def _folders(self) -> list[Path]:
        """Those of the classes."""
        return [self.folder / f"{slug(name)}-{y}" for y, name in enumerate(self.names)]

    def alone(self, row: int) -> str:
        return f"{row:06}.{self.format}"

    def block(self, decoder: Decoder) -> int:
        return tile_size(decoder)

    def is_whole(self, file: Path) -> bool:
        """By the hash that was noted when it was drawn; else (brought from elsewhere, or drawn in the moment
        of a kill) by reading it.
        """
        if noted := self._noted.get(str(file.relative_to(self.folder))):
            return file_hash(file) == noted
        try:
            with Image.open(file) as picture:
                picture.load()
        except Exception:  # Pillow raises many kinds, SyntaxError among them
            return False
        return True

    @cached_property
    def _noted(self) -> dict[str, str]:
        """The hashes by file that this process's forerunners have noted."""
        noted: dict[str, str] = {}
        for notes in self.folder.glob(NOTES.format("*")):
            with notes.open(encoding="utf-8", errors="replace", newline="\n") as lines:
                parts = (line.removesuffix("\n").partition(" ") for line in lines)
                noted |= {name: value for value, _, name in parts if len(value) == HASH_DIGITS}
        return noted

    def images(self, name: str, size: int, mend: str) -> Images:
        """All of them, in the order of their vectors, labelled with the classes.

        Raises DataError when some are missing or damaged; `mend` is the command that draws them again.
        """
        labels = self.vectors.y_M.tolist()
        try:
            files = map(self.path, range(len(labels)))
            images = from_files(name, files, labels, tuple(self.names), size)
        except DataError as error:
            raise DataError(f"{error} Or draw them again: {mend}") from error
        if len(images) != len(labels):
            raise DataError(
                f"{len(labels) - len(images):,} of {len(labels):,} images are missing or damaged in "
                f"{self.folder}. Mend them with: {mend}"
            )
        return images

    def drawing(self, rows: Tensor) -> Drawing:
        return partial(drawn_images, vectors_at(self.vectors, rows), rows, self.format)

    def parts(self, rows: Tensor, decoder: Decoder) -> Sequence[Tensor]:
        return rows.split(tile_size(decoder))

    def write(self, file: Path, data: bytes) -> None:
        write_bytes(file, data, sync=False)
        if file.is_relative_to(self.folder):
            notes = self.folder / NOTES.format(f"{socket.gethostname()}-{os.getpid()}")
            with explained(notes), notes.open("a", encoding="utf-8") as lines:
                lines.write(f"{file_hash(file)} {file.relative_to(self.folder)}\n")

    def decode(self, decoder: Decoder, rows: list[int], into: Path | None = None) -> None:
        for m, data in self.drawing(torch.tensor(rows, dtype=torch.long))(decoder):
            self.write(into / self.alone(m) if into else self.path(m), data)


@dataclass(frozen=True, kw_only=True)
class LatentShards(GeneratedFiles):
    """Safetensors files of `SHARD` rows each: `latents_BFHW` (B, F, h, w), float16, and the rows `row_B`."""

    def path(self, row: int) -> Path:
        return self.folder / SHARD_FILE.format(f"{row // SHARD:05}")

    def alone(self, row: int) -> str:
        return f"latent-{row:06}.safetensors"

    def block(self, decoder: Decoder) -> int:
        return SHARD

    def is_whole(self, file: Path) -> bool:
        try:
            return bool(load_tensors(file))
        except StoreError:
            return False

    def drawing(self, rows: Tensor) -> Drawing:
        what = self.path(int(rows[0])).stem
        return partial(drawn_latents, vectors_at(self.vectors, rows), rows, what)

    def parts(self, rows: Tensor, decoder: Decoder) -> Sequence[Tensor]:
        shard_B = rows // SHARD
        return [rows[shard_B == shard] for shard in shard_B.unique()]

    def write(self, file: Path, data: bytes) -> None:
        write_bytes(file, data)

    def decode(self, decoder: Decoder, rows: list[int], into: Path | None = None) -> None:
        """As for images, by whole shards; into another folder row by row."""
        row_B = torch.tensor(rows, dtype=torch.long)
        for part in row_B.split(1) if into else self.parts(row_B, decoder):
            for m, data in self.drawing(part)(decoder):
                self.write(into / self.alone(m) if into else self.path(m), data)


Drawing = Callable[[Decoder], Iterable[tuple[int, bytes]]]
"""Gives with a decoder what files hold, each with the first row that is in it."""


def vectors_at(vectors: SampledVectors, rows: Tensor) -> SampledVectors:
    """Some rows of the vectors. All of them are not copied."""
    if torch.equal(rows, torch.arange(len(vectors))):
        return vectors
    picked: dict[str, Any] = {name: x[rows] for name, x in vars(vectors).items() if isinstance(x, Tensor)}
    return replace(vectors, **picked)


def drawn_images(
    vectors: SampledVectors, rows: Tensor, form: str, decoder: Decoder
) -> Iterator[tuple[int, bytes]]:
    """The files of the images of these vectors, which are those of `rows`."""
    for batch in decoded(vectors, rows, decoder, "images"):
        assert batch.images_B3HW is not None
        for m, image_3HW in zip(rows[batch.row_B].tolist(), batch.images_B3HW, strict=True):
            yield m, image_file(image_3HW, form)


def image_file(image_3HW: Tensor, form: str = "png") -> bytes:
    """The file of an image, uint8, in one of the `FORMATS`."""
    buffer = io.BytesIO()
    Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(buffer, **FORMATS[form])
    return buffer.getvalue()


def drawn_latents(
    vectors: SampledVectors, rows: Tensor, what: str, decoder: Decoder
) -> Iterator[tuple[int, bytes]]:
    """One file of the latents of these vectors, which are those of `rows`; `what` names it in the
    progress.
    """
    batches = list(decoded(vectors, rows, decoder, "latents", what))
    latents = [batch.latents_BFHW for batch in batches if batch.latents_BFHW is not None]
    yield int(rows[0]), tensors_file({"latents_BFHW": torch.cat(latents), "row_B": rows})


def decoded(
    vectors: SampledVectors, rows: Tensor, decoder: Decoder, output: Literal["images", "latents"],
    what: str = "decode",
) -> Iterator[Generated]:  # fmt: skip
    """As `synthesis.decode.decode`, with the right row in its error."""
    try:
        yield from decode(vectors, decoder, output=output, what=what)
    except NotFiniteError as error:
        raise NotFiniteError(int(rows[error.index]), error.part, error.dtype, "Row") from error


def imagined_images(run: Run) -> Images:
    """All images that a run imagined, in the order of their vectors, labelled with the classes that they lie
    around.

    Raises DataError when some are missing or damaged, or when the run imagines none.
    """
    check_imagined(run, "images")
    assert isinstance(run.files, ImageFiles)
    run.folder.check_record(imagined_stage("images"))
    return run.files.images("imagined", run.config.size, f"oodream decode {run.folder.path} --verify")


def latent_reader(files: Sequence[Path]) -> Callable[[Tensor], Tensor]:
    """A function of rows (B,) that reads their latents (B, F, h, w) from shards, which hold `SHARD` rows
    each.

    The files are mapped, not read, so memory does not grow with them.
    """
    shards = [load_tensors(file)["latents_BFHW"] for file in files]

    def read(rows: Tensor) -> Tensor:
        if not len(rows):
            return shards[0][:0]
        return torch.stack([shards[m // SHARD][m % SHARD] for m in rows.tolist()])

    return read


def slug(name: str) -> str:
    """A class name as a folder name: no separators, no dots, so that it cannot leave the run folder."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_")
    hashed = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    if len(plain.encode()) > LONGEST:  # of a file system: names of 255 bytes
        plain = plain.encode()[:LONGEST].decode(errors="ignore") + f"_{hashed}"
    return plain or hashed
