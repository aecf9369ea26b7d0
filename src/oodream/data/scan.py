"""Which files below a folder are pictures, and which are there and cannot be read, with the reason.

Links to files and folders are followed, and every folder is looked into once. Hidden files, what operating
systems leave behind, and run folders of this program's own are passed over.
"""

from __future__ import annotations

import codecs
import os
import warnings
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from ..core.errors import DataError, listed, shown
from ..core.files import MAX_JSON, parse_json, read_text
from ..runtime.formats import HEAD, NOT_PICTURES, unread_format

__all__ = [
    "MAX_UNREADABLE",
    "SUFFIXES",
    "Scan",
    "explain",
    "image_files",
    "is_run_folder",
    "is_skipped",
    "report_unread",
    "scan",
    "walk",
]

MAX_UNREADABLE = 0.05
SUFFIXES = frozenset(
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in Image.OPEN and name not in NOT_PICTURES
)
SYSTEM = frozenset(
    name.casefold()
    for name in (
        "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "RECYCLER", "System Volume Information",
        "lost+found", "__pycache__", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r",
    )
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The pictures below a folder, sorted by path, and by reason the files that are there and not read.

    `pictures` counts those of the latter that are pictures, or may be: damaged links, formats without a
    reader. The rest of `unread` is binary and of no known kind.
    """

    files: tuple[Path, ...] = ()
    unread: dict[str, list[Path]] = field(default_factory=dict)
    pictures: int = 0

    def __add__(self, other: Scan) -> Scan:
        unread = {reason: list(files) for reason, files in self.unread.items()}
        for reason, files in other.unread.items():
            unread.setdefault(reason, []).extend(files)
        return Scan(files=self.files + other.files, unread=unread, pictures=self.pictures + other.pictures)


def scan(folder: Path, exclude: Collection[Path] = ()) -> Scan:
    """What lies below a folder at any depth, without the folders in `exclude` (resolved paths).

    A file is a picture by its suffix, or by its content where the suffix is none of a picture's. Text is
    passed over without a word.
    """
    files: list[Path] = []
    unread: dict[str, list[Path]] = {}
    pictures = 0
    for path, reason, counts in walk(folder, exclude):
        if reason is None:
            files.append(path)
        else:
            unread.setdefault(reason, []).append(path)
            pictures += counts
    return Scan(
        files=tuple(sorted(files)),
        unread={reason: sorted(unread[reason]) for reason in sorted(unread)},
        pictures=pictures,
    )


def walk(folder: Path, exclude: Collection[Path] = ()) -> Iterator[tuple[Path, str | None, bool]]:
    """What `scan` finds, one by one, folder after folder and by name in each: the file, why it is not read
    (None for a picture), and whether it is a picture, or may be.
    """
    for path, problem in _walk(folder, exclude):
        reason, counts = (problem, True) if problem else _classify(path)
        if reason != "":
            yield path, reason, counts


def image_files(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted by path, as `scan` finds them; warns of those that are not read."""
    found = scan(folder)
    if found.unread:
        warnings.warn(f"{shown(folder)}: {explain(found)}", stacklevel=2)
    return list(found.files)


def report_unread(name: str, found: Scan) -> None:
    """Warns of what is there and not read; DataError when it is more than 5 % of the pictures."""
    if not found.unread:
        return
    message = f"{name}: {explain(found)}"
    if found.pictures > MAX_UNREADABLE * (len(found.files) + found.pictures):
        raise DataError(
            f"{message}\nThat is more than {MAX_UNREADABLE:.0%} of the pictures; "
            "mend, convert or remove them."
        )
    left_out = "It is left out." if sum(map(len, found.unread.values())) == 1 else "They are left out."
    warnings.warn(f"{message}\n  {left_out}", stacklevel=3)


def explain(found: Scan) -> str:
    """What is not read, by reason, with counts and an example of each."""
    total = sum(map(len, found.unread.values()))
    reasons = (
        f"{len(files)} × {reason}, such as {shown(files[0])}" for reason, files in found.unread.items()
    )
    files = "1 file is" if total == 1 else f"{total} files are"
    return f"{files} there and not read:\n  " + listed(reasons, "\n  ")


def is_skipped(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.casefold() in SYSTEM


def is_run_folder(folder: Path) -> bool:
    """Whether a folder is a run of this program, or holds such runs and no pictures.

    A folder called `runs` may be empty, or its runs may not have begun.
    """
    return _holds_runs(folder, frozenset())


def _holds_runs(folder: Path, above: frozenset[Path]) -> bool:
    """`is_run_folder`; a link back to one of the folders `above` (resolved paths) holds no runs."""
    if _is_run(folder):
        return True
    if (place := folder.resolve()) in above:
        return False
    try:
        entries = [entry for entry in os.scandir(folder) if not is_skipped(entry.name)]
    except OSError:
        return False
    folders = [path for entry in entries if (path := Path(entry.path)).is_dir()]
    holds_runs = partial(_holds_runs, above=above | {place})
    if any(Path(entry.name).suffix.lower() in SUFFIXES for entry in entries):
        return False
    if folder.name == "runs" and len(folders) == len(entries):
        return all(holds_runs(path) or _is_empty(path) for path in folders)
    return bool(folders) and all(map(holds_runs, folders))


def _is_empty(folder: Path) -> bool:
    return all(is_skipped(entry.name) for entry in os.scandir(folder))


def _is_run(folder: Path) -> bool:
    if not (folder / "run.json").is_file():  # a device has no end
        return False
    try:
        run = parse_json(read_text(folder / "run.json", MAX_JSON))
    except (OSError, ValueError):
        return False
    return isinstance(run, dict) and "config" in run


def _walk(folder: Path, exclude: Collection[Path]) -> Iterator[tuple[Path, str | None]]:
    """Files below a folder, and what cannot be looked into, with a reason.

    Real folders come first, so that links add only what is new. A link to the folder itself, or to one above
    it, adds nothing.
    """
    top = folder.resolve()
    closed, visited = {*exclude, *top.parents}, set()
    pending = deque([folder])
    while pending:
        here = pending.pop()
        try:
            status = here.stat()
            entries, place = sorted(os.scandir(here), key=lambda entry: entry.name), here.resolve()
        except (OSError, RuntimeError) as error:  # before Python 3.13 of links in a circle
            yield here, f"folder that cannot be opened ({getattr(error, 'strerror', None) or error})"
            continue
        if (identity := (status.st_dev, status.st_ino)) in visited or place in closed:
            continue
        visited.add(identity)
        if here != folder and any(entry.name == "run.json" for entry in entries) and _is_run(here):
            continue
        folders: list[Path] = []
        for entry in entries:
            path = here / entry.name
            if is_skipped(entry.name):
                continue
            try:
                if entry.is_dir():
                    (pending.appendleft if entry.is_symlink() else folders.append)(path)
                elif entry.is_file():
                    yield path, None
                elif entry.is_symlink():
                    yield path, "link to nothing: fetch what it leads to, or remove it"
            except OSError as error:  # a link in a circle
                yield path, f"link that cannot be followed ({error.strerror or error})"
        pending.extend(reversed(folders))


def _classify(path: Path) -> tuple[str | None, bool]:
    """(None for a picture, "" for text, else why it is not read; whether it counts as a picture)."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return None, True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return f"file that cannot be opened ({error.strerror or error})", True
    if not (head.isascii() and b"\0" not in head) and _opens(path):
        return None, True
    if kind := unread_format(head, suffix):
        return kind, True
    if b"\0" not in head or head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "", False
    return f"no picture by its content ({suffix or 'without a suffix'})", False


def _opens(path: Path) -> bool:
    """Whether Pillow knows the content as a picture."""
    try:
        with Image.open(path) as image:
            return image.format not in NOT_PICTURES
    except Exception:  # on strange bytes Pillow's readers raise nearly anything
        return False
