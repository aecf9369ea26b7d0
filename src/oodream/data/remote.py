"""Image folders in buckets: those that are trained and measured on are copied here once, and looked at
again each time for what has changed; pictures that are only scored are fetched one by one and kept
nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

from ..config import Config
from ..core.errors import DataError, shown
from ..core.files import write_json
from ..core.progress import progress
from ..core.storage import Storage, cached_at, is_url
from .scan import SUFFIXES, is_skipped

__all__ = ["RemotePicture", "copied", "local_copy", "pictures_at", "with_local_copies"]

INDEX = ".oodream-copy.json"  # name: [size, tag] of the files that are here
THREADS = 16


def with_local_copies(config: Config) -> Config:
    """The configuration with folders here in place of those in buckets, which are copied first.

    Raises ConfigError or StoreError where one cannot be read, DataError where it is empty.
    """

    return replace(
        config,
        data=copied(config.data),
        root=copied(config.root),
        ood=tuple(map(copied, config.ood)),
        shifted=tuple(map(copied, config.shifted)),
        regularize=replace(config.regularize, real=copied(config.regularize.real)),
    )


def copied(text: str) -> str:
    """What names a folder of images, FOLDER or NAME=FOLDER, with a copy here in place of one in a bucket."""
    label, equals, url = ("", "", text) if is_url(text) else text.partition("=")
    return f"{label}{equals}{local_copy(url)}" if is_url(url) else text


@cache
def local_copy(url: str) -> Path:
    """A copy here of the folder at a URL; files whose size and tag are those of the last time are not
    fetched again, and those that are gone there go here.

    Every file of it is fetched, for every picture is read in any case before a run begins. Raises
    DataError where there is no file, and what `Storage` raises.
    """
    storage, folder = Storage(url), cached_at(url, "data")
    there = {name: [size, tag] for name, size, tag in storage.walk() if not _is_skipped(name)}
    if not there:
        raise DataError(f"There is no file at {url}.")
    index = folder / INDEX
    here = json.loads(index.read_text()) if index.exists() else {}
    for name in here.keys() - there.keys():
        (folder / name).unlink(missing_ok=True)
    here = {name: tag for name, tag in here.items() if there.get(name) == tag and (folder / name).is_file()}
    wanted = [name for name in there if name not in here]

    def fetch(name: str) -> None:
        storage.fetch(name, folder / name)
        here[name] = there[name]

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in progress(
                pool.map(fetch, wanted), total=len(wanted), what=f"fetching {shown(url)}", unit="file"
            ):
                pass
    finally:
        write_json(index, here)
    return folder


def pictures_at(url: str) -> Iterator[str]:
    """The URLs of the pictures below a URL, or of the one that is there: by their suffixes, folder after
    folder and by name in each.
    """
    storage = Storage(url)
    if PurePosixPath(storage.root).suffix.lower() in SUFFIXES:
        yield url
        return
    for name, _, _ in storage.walk():
        if PurePosixPath(name).suffix.lower() in SUFFIXES and not _is_skipped(name):
            yield f"{storage.url}/{name}"


@dataclass(frozen=True)
class RemotePicture:
    """A picture in a bucket: called, it fetches the bytes. FileNotFoundError where it is gone."""

    url: str

    def __call__(self) -> bytes:
        folder, _, name = self.url.rpartition("/")
        return _storage(folder).read(name)


_storage = cache(Storage)


def _is_skipped(name: str) -> bool:
    """Whether a file is hidden or left behind by an operating system, or its name leads nowhere here."""
    return "\\" in name or any(part in ("", "..") or is_skipped(part) for part in name.split("/"))
