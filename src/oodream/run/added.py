"""Pictures that a person drew by hand and added to a run's outliers: the folder `added/` of the run, with a
PNG for each, and `added.jsonl`, which says of each what it was made from.

Training takes them as outliers beside the imagined ones, and `fingerprint` is an input of that stage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.errors import StoreError, are, shown
from ..core.files import encode_json, read_json_lines, write_bytes
from ..core.folders import held
from ..core.sealed import damaged, with_check, without_check
from ..core.types import Json
from ..data.images import Images, from_files
from .lacking import lacks_outlier_images

if TYPE_CHECKING:
    from .artifacts import Run

__all__ = [
    "AddedOutliers",
    "AddedPictures",
    "add_picture",
    "added_outliers",
    "read_added",
    "remove_picture",
]

LINES = "added.jsonl"
SECONDS = 20  # that another process may hold the folder
KINDS = {
    "number": int, "file_name": str, "hash": str, "class": str, "prompt": str, "vector": list, "words": list,
    "cosine_to_class": float, "pipeline": str, "recipe": dict, "way": str,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AddedPictures:
    """The pictures that were there when this was read, in the order in which they were added.

    A line has the picture's `number`, its `file_name` and the file's `hash`; the `class` that it lies around,
    the `prompt`, the unit `vector` that was drawn, its `cosine_to_class`, the nearest `words`, and the
    decoder's fingerprint, `pipeline`. Its `recipe` is all that it takes to draw it again (see `run.imagine`),
    and `way` says how the vector was found, in words.
    """

    folder: Path
    lines: Sequence[Json] = ()

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def fingerprint(self) -> str:
        """A hash of what training reads of them: the files, their classes and vectors."""
        facts = [[line["hash"], line["class"], line["vector"]] for line in self.lines]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()

    @property
    def files(self) -> list[Path]:
        """The pictures' files."""
        return [self.folder / line["file_name"] for line in self.lines]

    @property
    def vectors(self) -> Tensor:
        """The unit vectors (A, D) that were drawn, float32."""
        return normalize(torch.tensor([line["vector"] for line in self.lines], dtype=torch.float32), dim=1)

    def read(self, classes: Sequence[str], size: int) -> Images:
        """The pictures, labelled with the classes that they lie around; there must be one.

        Raises StoreError for files that are missing or are others than were added, and for a class that
        the run does not have.
        """
        for line in self.lines:
            if line["class"] not in classes:
                raise StoreError(
                    f"Picture {line['number']} in {shown(self.folder)} was added for the class "
                    f"{line['class']!r}, which this run does not have. Remove it in the studio."
                )
        if bad := damaged((file, line["hash"]) for file, line in zip(self.files, self.lines, strict=True)):
            names = sorted(file.name for file in bad)
            raise StoreError(
                f"{are(names, 'added pictures')} missing or damaged in {shown(self.folder)}. Restore what "
                "is, or remove it in the studio."
            )
        labels = [classes.index(line["class"]) for line in self.lines]
        return from_files("added", self.files, labels, classes, size)


@dataclass(frozen=True, kw_only=True)
class AddedOutliers(AddedPictures):
    """Those of a run whose training takes some, with the run's `classes` and the `size` of its images."""

    classes: Sequence[str] = ()
    size: int = 0

    @cached_property
    def images(self) -> Images:
        """The pictures, as `read` gives them, read once."""
        return self.read(self.classes, self.size)


def added_outliers(run: Run) -> AddedOutliers:
    """The outliers that people have drawn and added to a run; none where the run's training takes none."""
    folder = run.layout.added
    lines = () if lacks_outlier_images(run, imagined=True) else read_added(folder).lines
    if not lines:
        return AddedOutliers(folder=folder)
    return AddedOutliers(folder=folder, lines=lines, classes=run.book.names, size=run.config.size)


def read_added(folder: Path) -> AddedPictures:
    """The pictures in a run's folder `added`, which need not be there.

    Raises StoreError, with the line's number, where `added.jsonl` is damaged.
    """
    file = folder / LINES
    if not file.is_file():
        return AddedPictures(folder=folder)
    try:
        lines = [without_check(line) if isinstance(line, dict) else line for line in read_json_lines(file)]
    except ValueError as error:
        raise StoreError(f"{shown(file)} is damaged ({error}). Restore or remove it.") from error
    for i, line in enumerate(lines, 1):
        whole = isinstance(line, dict) and all(isinstance(line.get(k), kind) for k, kind in KINDS.items())
        if not whole or line["file_name"] != _file_name(line["number"]):
            raise StoreError(f"{shown(file)}, line {i}, is damaged. Restore or remove it.")
    return AddedPictures(folder=folder, lines=lines)


def add_picture(folder: Path, png: bytes, facts: Json) -> Json:
    """Keeps a picture with what it was made from, and returns its line. The same picture again is no second
    one.

    `facts` are the keys of a line but for number, file and hash (see `AddedPictures`). Raises StoreError
    where the folder cannot be written, and what `read_added` raises.
    """
    with _locked(folder):
        lines, digest = read_added(folder).lines, hashlib.blake2b(png, digest_size=16).hexdigest()
        for line in lines:
            if line["hash"] == digest and line["vector"] == facts["vector"]:
                return line
        number = 1 + max((line["number"] for line in lines), default=0)
        line = {"number": number, "file_name": _file_name(number), **facts, "hash": digest}
        write_bytes(folder / line["file_name"], png)
        _write(folder, [*lines, line])
        return line


def remove_picture(folder: Path, number: int) -> Json:
    """Removes a picture, and returns the line that it had.

    Raises ValueError where there is none with that number, and what `read_added` raises.
    """
    with _locked(folder):
        lines = read_added(folder).lines
        line = next((line for line in lines if line["number"] == number), None)
        if line is None:
            raise ValueError(f"No picture has the number {number}: it has been removed already.")
        _write(folder, [other for other in lines if other is not line])
        (folder / line["file_name"]).unlink(missing_ok=True)
        return line


def _write(folder: Path, lines: Sequence[Json]) -> None:
    write_bytes(folder / LINES, b"".join(encode_json(with_check(line)) + b"\n" for line in lines))


def _file_name(number: int) -> str:
    return f"{number:06}.png"


def _locked(folder: Path) -> AbstractContextManager[None]:
    return held(folder, f"Another process is writing in {shown(folder)}. Try again.", seconds=SECONDS)
