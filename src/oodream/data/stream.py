"""Pictures without labels, in order, one after the other: of folders, of lists of paths, or of a data set of
the hub. However many they are, memory does not grow with their number.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Protocol

from ..core.errors import DataError, shown
from ..core.files import write_bytes
from ..core.folders import check_is_there
from ..core.storage import is_url
from .hub_pictures import HubPictures
from .remote import RemotePicture, pictures_at
from .scan import walk

__all__ = [
    "HUB",
    "FileList",
    "NamedBytes",
    "Pictures",
    "Source",
    "is_list",
    "list_files",
    "open_pictures",
]

HUB = "hub:"
"""what names of the hub's data sets and repositories begin with"""
LISTS = (".txt", ".lst")


Source = Path | BytesIO | RemotePicture
"""Where a picture's bytes are; one in a bucket is fetched when it is called."""


class NamedBytes(BytesIO):
    """The bytes of a file, under whose name a fault of theirs is told."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.called = name

    def __repr__(self) -> str:
        return repr(self.called)


class Pictures(Protocol):
    """Pictures in order: how many, and a hash of what they are, in this order."""

    @property
    def total(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def read(self, start: int = 0) -> Iterator[tuple[str, Source]]:
        """The pictures from the place `start` on: what each is called, and where its bytes are."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileList:
    """Files of pictures, as they stand in the text file `file`, one path or URL a line. Their identity is a
    hash of their names, and of the sizes and times of files here. A null byte, which is in no path, stands
    for a line break in one.
    """

    file: Path
    total: int
    identity: str

    def read(self, start: int = 0) -> Iterator[tuple[str, Source]]:
        with self.file.open("rb") as lines:
            for line in islice(lines, start, None):
                name = os.fsdecode(line.rstrip(b"\n").replace(b"\0", b"\n"))
                yield name, RemotePicture(name) if is_url(name) else Path(name)


def open_pictures(places: Sequence[str], file: Path) -> Pictures:
    """The pictures of a command line: those of the data set "hub:NAME", or what `list_files` writes to
    `file`.

    Raises DataError where there is none, or where a data set of the hub is not alone.
    """
    if not any(place.startswith(HUB) for place in places):
        return list_files(places, file)
    if len(places) > 1:
        raise DataError(
            "A data set of the hub is scored by itself: give hub:NAME alone, and the others another time."
        )
    return HubPictures.open(places[0].removeprefix(HUB))


def list_files(places: Sequence[Path | str], file: Path) -> FileList:
    """Writes the list of the pictures in folders, in lists (text files that end in .txt or .lst, with a path
    or URL a line) and of single ones, in this order, one path a line. Folders and pictures may be URLs.

    A folder's pictures are those that `scan.walk` finds, in its order, with those that it says cannot be
    read. Paths in a list are as on the command line: relative ones start from the working directory. A place
    that is given twice counts once; warns of one that lies in another, for its pictures count twice.

    Raises, before anything is written, StoreError for a place that is not there; and DataError for a list
    that is no text, and where there is no picture at all.
    """
    digest, total, places = hashlib.blake2b(digest_size=16), 0, _given_once(places)

    def lines() -> Iterator[bytes]:
        nonlocal total
        for path in _paths(places):
            yield (line := os.fsencode(path).replace(b"\n", b"\0") + b"\n")
            digest.update(line + _size_and_time(path))
            total += 1

    write_bytes(file, lines(), sync=False)
    if not total:
        raise DataError(f"There is no picture to read in {', '.join(map(shown, places)) or 'what is given'}.")
    return FileList(file=file, total=total, identity=digest.hexdigest())


def _given_once(places: Sequence[Path | str]) -> list[Path | str]:
    """The places without those that stood before."""
    once: dict[Path | str, Path | str] = {}
    for place in places:
        if not is_url(place):
            check_is_there(Path(place), "file or folder")
        once.setdefault(place if is_url(place) else Path(place).resolve(), place)
    for key, place in once.items():
        around = [] if isinstance(key, str) else [once[folder] for folder in key.parents if folder in once]
        if around:
            warnings.warn(
                f"{shown(place)} lies in {shown(around[0])}, which is given, too: its pictures are answered "
                "twice.",
                stacklevel=3,
            )
    return [*once.values()]


def _paths(places: Iterable[Path | str]) -> Iterator[str]:
    for text in places:
        if is_url(text):
            yield from pictures_at(str(text))
            continue
        place = Path(text)
        if place.is_dir():
            for path, reason, is_picture in walk(place):
                if reason is None or is_picture:
                    yield str(path)
        elif is_list(place):
            yield from _listed(place)
        else:
            yield str(place)


def _size_and_time(path: str) -> bytes:
    """A file's length, and the second in which it was last changed; nothing of one that is elsewhere, or not
    there.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a null byte
        return b""
    return b"%d %d\n" % (status.st_size, status.st_mtime)


def is_list(place: Path | str) -> bool:
    """Whether a place of a command line is a list of pictures, by its suffix."""
    return not is_url(place) and Path(place).suffix.lower() in LISTS and not Path(place).is_dir()


def _entry(line: str) -> str:
    """The path or URL in a line, without spaces around it and the quotes that file managers put; a file that
    is called as the whole line is meant by it.
    """
    if os.path.lexists(line):
        return line
    text = line.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _listed(file: Path) -> Iterator[str]:
    """The entries of a list: its lines that are not blank."""
    try:
        with file.open("rb") as start:
            utf16 = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding, errors = ("utf-16", "strict") if utf16 else ("utf-8-sig", "surrogateescape")
        with file.open(encoding=encoding, errors=errors, newline="\n") as lines:
            for line in lines:
                if "\0" in line:
                    raise UnicodeError("a null byte is in no text")
                if line.strip():
                    yield _entry(line.rstrip("\r\n"))
    except UnicodeError as error:
        raise DataError(
            f"{shown(file)} is no list: it should be text, with the path of a picture a line."
        ) from error
    except OSError as error:
        raise DataError(f"The list {shown(file)} cannot be read ({error.strerror or error}).") from error
