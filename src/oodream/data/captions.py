"""Captioned pictures for `fit-decoder`: captions from an index, texts beside pictures, or folder names."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core.errors import DataError, brief, listed, shown
from ..core.files import parse_json, read_text
from ..core.folders import is_within
from .images import Images, from_files
from .scan import MAX_UNREADABLE, is_skipped, report_unread, scan

__all__ = ["captioned_folder"]

INDEXES = ("metadata.jsonl", "metadata.csv")  # the first that a folder has is read
TEXTS = ("text", "caption")  # what the column of captions is called
# Files that are called as captions are, in formats that captions come in.
CALLED = {"metadata", "caption", "captions", "annotation", "annotations", "prompts", "descriptions"}
FORMATS = {".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".xml", ".yaml", ".yml"}
MAX_WEIGHT = 1e9  # of a picture
BESIDE = {".caption", ".cap", ".json", ".txt"}  # beside a picture, under its name

Line = tuple[Path, str, float]


def captioned_folder(folder: Path, size: int) -> tuple[Images, list[str], torch.Tensor]:
    """(images, captions, sampling weights) of a folder, for `fit-decoder`.

    Captions are those of every `metadata.jsonl` or `metadata.csv` below the folder (`file_name`, `text` or
    `caption`, optional `weight`: the layout that `datasets` calls imagefolder). Without one they are the
    texts beside the pictures (`a.txt` for `a.png`), and without these the names of the folders that the
    pictures lie in. Warns of files that look like captions and are not read, and of pictures without a
    caption. Raises DataError for an index that is damaged or leads out of its folder, and where more than 5 %
    of the pictures have no text beside them while others have.
    """
    if not folder.is_dir():
        raise DataError(f"{shown(folder)} is not a folder.")
    indexes = sorted(_indexes(folder))
    found = scan(folder)
    report_unread(shown(folder), found)
    used: Collection[Path] = indexes
    if indexes:
        lines = [line for index in indexes for line in _indexed(index)]
    elif texts := _beside(folder, found.files):
        lines, used = [(file, text, 1.0) for file, text in texts.items()], [_text_of(file) for file in texts]
    else:
        lines = [(file, shown(file.parent.name).replace("_", " "), 1.0) for file in found.files]
    _warn(folder, found.files, {file for file, _, _ in lines}, used, bool(indexes))
    images = from_files(
        shown(folder.resolve().name), [file for file, _, _ in lines], range(len(lines)), (), size
    )
    kept = [lines[row] for row in images.labels.tolist()]
    names = sorted({caption for _, caption, _ in lines})
    ids = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([ids[caption] for _, caption, _ in kept])
    weights = torch.tensor([weight for _, _, weight in kept])
    return replace(images, labels=labels, classes=tuple(names)), [caption for _, caption, _ in kept], weights


def _visible(folder: Path) -> Iterator[Path]:
    """Files that are neither hidden nor a system's."""
    pending = [folder]  # and no recursion, for folders may lie in each other a thousand times
    while pending:
        here = pending.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:  # `scan` has said so
            continue
        for entry in entries:
            if is_skipped(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(here / entry.name)
            elif (here / entry.name).is_file():
                yield here / entry.name


def _indexes(folder: Path) -> Iterator[Path]:
    for path in _visible(folder):
        if path.name == INDEXES[0] or (path.name == INDEXES[1] and not path.with_name(INDEXES[0]).exists()):
            yield path


def _indexed(index: Path) -> list[Line]:
    """The lines of an index. A shared data set must not reach other files: paths stay inside the folder."""
    folder, lines = index.parent, []
    for number, raw in _entries(index):
        try:
            entry = parse_json(raw) if isinstance(raw, str) else raw
            text = entry[next((key for key in TEXTS if key in entry), TEXTS[0])]
            weight = float(1.0 if entry.get("weight") == "" else entry.get("weight", 1.0))
            if not isinstance(text, str) or not 0 <= weight <= MAX_WEIGHT:
                raise ValueError(f"text {brief(text)}, weight {brief(weight)}")
            file = folder / entry["file_name"]
            inside = is_within(file, folder)
        except (
            AttributeError,
            KeyError,
            OverflowError,
            TypeError,
            ValueError,
            OSError,
            RuntimeError,
        ) as error:
            raise DataError(
                f"{shown(index)}, line {number}: {brief(error)}. "
                "A line has file_name, text and maybe a numeric weight."
            ) from error
        if not inside:
            raise DataError(f"{shown(index)}, line {number}: {shown(file)} lies outside {shown(folder)}.")
        lines.append((file, text, weight))
    if lines and not any(weight for _, _, weight in lines):
        raise DataError(f"{shown(index)}: every weight is 0, so no picture would ever be drawn.")
    return lines


def _entries(index: Path) -> Iterator[tuple[int, str | dict[str, Any]]]:
    """The entries of an index with their line numbers: lines of JSON as they stand, or a table's rows."""
    text = _text(index)
    if index.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        try:
            yield from ((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise DataError(
                f"{shown(index)}, line {reader.line_num + 1}, is no line of CSV: {error}."
            ) from error
    else:
        # JSON lines end at \n alone: a caption may hold any other line separator.
        yield from ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _beside(folder: Path, pictures: Sequence[Path]) -> dict[Path, str]:
    """The texts beside the pictures, where there are such; a text without letters is no caption."""
    texts: dict[Path, str] = {}
    for picture in pictures:
        file = _text_of(picture)
        if file.is_file() and is_within(file, folder):
            text = " ".join(_text(file).split())
            if any(c.isalpha() for c in text):
                texts[picture] = text
    if texts and (bare := len(pictures) - len(texts)) > MAX_UNREADABLE * len(pictures):
        raise DataError(
            f"{shown(folder)}: {bare} of {len(pictures)} pictures have no text beside them, and the others "
            "have. Write the missing captions, or remove the texts to take the folders' names."
        )
    return texts


def _text_of(picture: Path) -> Path:
    return picture.with_suffix(".txt")


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except ValueError as error:
        raise DataError(f"{shown(file)} is no text in UTF-8: {error}.") from error


def _warn(
    folder: Path, pictures: Sequence[Path], captioned: Collection[Path], used: Collection[Path], indexed: bool
) -> None:
    """Warns of what looks like captions and is not read, and of pictures without a caption."""
    stems, read = {picture.with_suffix("") for picture in pictures}, {*used}
    unread = [
        path
        for path in sorted(_visible(folder))
        if path not in read
        and (
            (path.suffix.lower() in FORMATS and path.stem.casefold() in CALLED)
            or (path.suffix.lower() in BESIDE and path.with_suffix("") in stems)
        )
    ]
    source = "index files" if indexed else "texts beside the pictures" if used else "the names of the folders"
    if unread:
        warnings.warn(
            f"{shown(folder)}: the captions are those of {source}. {len(unread)} files look like captions "
            f"and are not read: {listed(shown(path.relative_to(folder)) for path in unread)}. Captions are "
            "read from metadata.jsonl or metadata.csv (file_name, text), or from a.txt beside a.png.",
            stacklevel=3,
        )
    if bare := [picture for picture in pictures if picture not in captioned]:
        warnings.warn(
            f"{shown(folder)}: {len(bare)} pictures have no caption and are left out, such as "
            f"{shown(bare[0])}.",
            stacklevel=3,
        )
