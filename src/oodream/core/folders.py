"""Folders: whether one is there, who works in one, and of foreign formats, such as those of diffusers, the
hashes of their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from .errors import StoreError, shown
from .files import explained, make_folder, read_json, write_json
from .sealed import damaged, file_hash

__all__ = ["HASHES", "changed_files", "check_is_there", "held", "is_within", "write_hashes"]

HASHES = "hashes.json"
"""the file with the hashes of a folder's files"""


def check_is_there(folder: Path, what: str = "folder") -> None:
    """Raises StoreError, which names what is called alike beside it, where there is no such folder, or
    whatever it is called.
    """
    if folder.exists():
        return
    beside = [one.name for one in folder.parent.iterdir()] if folder.parent.is_dir() else []
    near = get_close_matches(folder.name, beside, n=1)
    hint = f" Did you mean {shown(folder.with_name(near[0]))}?" if near else ""
    raise StoreError(f"There is no {what} {shown(folder)}.{hint}")


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def write_hashes(folder: Path) -> None:
    """Writes down the hashes of all files below a folder, for `changed_files`."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {file.relative_to(folder).as_posix(): file_hash(file) for file in files}
    write_json(folder / HASHES, {"files": hashes}, sealed=True)


def changed_files(folder: Path) -> list[Path]:
    """Files that are missing or not as they were when the hashes were written; none where no hashes are.

    Raises StoreError where the file of the hashes is damaged itself.
    """
    if not (file := folder / HASHES).is_file():
        return []
    hashes = read_json(file)
    hashes = hashes.get("files") if isinstance(hashes, dict) else None
    if not isinstance(hashes, dict):
        raise StoreError(f"{shown(file)} is damaged.")
    return sorted(damaged((folder / name, value) for name, value in hashes.items()))


@contextmanager
def held(folder: Path, busy: str, *, name: str = ".lock", seconds: float = 0) -> Iterator[None]:
    """Holds a folder, which need not be there, for this process by a lock of this name in it; StoreError with
    the text `busy` where another one holds it for so many seconds. A killed process holds nothing.
    """
    import filelock  # a server, where it is not installed, holds nothing

    with explained(folder):
        make_folder(folder)
        lock = filelock.FileLock(folder / name)
        try:
            lock.acquire(timeout=seconds)
        except filelock.Timeout:
            raise StoreError(busy) from None
        try:
            yield
        finally:
            lock.release()
