"""Folders in buckets and on other servers, read and written by fsspec: `s3://bucket/folder`, `gs://…`,
`sftp://…`.

A bucket has no renaming, no locks and no folders. What can be relied on: an object is there as a whole or
not at all, and one can be made only if there is none of its name. Credentials come from the environment
alone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from .errors import StoreError
from .files import write_bytes
from .options import ConfigError

__all__ = ["CACHE", "PRIVATE", "Storage", "cached_at", "check_lasts", "is_url", "place_here"]

CACHE = "OODREAM_CACHE"
"""the variable with the folder of local copies; ~/.cache/oodream where it is not set"""
PRIVATE = ".oodream"
"""the folder of what this program keeps beside a folder's files"""
URL = re.compile(r"[a-z][a-z0-9+.-]+://")
TAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_settings",
    "mtime",
    "LastModified",
    "created",
)  # of fsspec's systems


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a folder or file elsewhere, and no path here."""
    return bool(URL.match(os.fspath(place)))


def check_lasts(place: str) -> None:
    """ConfigError where what is written to a place is gone when this process ends, as fsspec's memory is."""
    if place.startswith("memory://"):
        raise ConfigError(
            f"{place} is the memory of this process, and lost when it ends. Give a folder, or one in a "
            "bucket: s3://BUCKET/FOLDER."
        )


def cached_at(url: str, kind: str) -> Path:
    """Where a local copy of a kind lies of what is at a URL; ConfigError for a URL that leads upwards."""
    home = os.environ.get(CACHE)
    scheme, _, rest = url.partition("://")
    if ".." in rest.split("/"):
        raise ConfigError(f"{url} leads upwards by '..'. Name the place itself.")
    return Path(home or Path.home() / ".cache" / "oodream") / kind / scheme / rest.strip("/")


def place_here(place: str, kind: str) -> Path:
    """The path of a place, or for a URL where its local copy of a kind lies."""
    return cached_at(place, kind) if is_url(place) else Path(place)


class Storage:
    """A folder at a URL; names in it are relative, with slashes.

    Raises ConfigError for a URL with a password in it, and where the package for it is missing. All that
    fails later is a StoreError, but for FileNotFoundError and FileExistsError.
    """

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        if "@" in rest.partition("/")[0] and scheme != "sftp":
            raise ConfigError(
                f"A {scheme} URL with a password would be written into files. Leave it out: credentials come "
                "from the environment."
            )
        self.url = url.rstrip("/")
        with _told(url):
            import fsspec

            options = {"use_listings_cache": False} if scheme == "s3" else {}
            self.fs, root = fsspec.core.url_to_fs(self.url, **options)
            self.root = root.rstrip("/")

    def reach(self, write: bool = False) -> None:
        """Finds out before any work whether the folder can be read or, with `write`, written.

        Raises StoreError where it cannot, where there is nothing to read, or where a file can be made twice.
        """
        if not write:
            with _told(self.url):
                try:
                    self.fs.ls(self.root, detail=False)
                except FileNotFoundError as error:
                    raise self._nothing() from error
            return
        probe = f"{PRIVATE}/probe-{secrets.token_hex(4)}"
        try:
            self.create(probe, b"")
        except FileNotFoundError as error:
            raise StoreError(f"{self.url} cannot be written: {error}. Make the bucket first.") from error
        try:
            self.create(probe, b"")
        except FileExistsError:
            return
        finally:
            self.remove(probe)
        raise StoreError(
            f"{self.url} writes over a file that is there, though it is asked not to. Two machines could not "
            "know of each other: take a server with conditional writes."
        )

    def walk(self) -> Iterator[tuple[str, int, str]]:
        """Name, size, and a tag that changes with the content, of every file; folder after folder, by
        name.
        """
        with _told(self.url):
            try:
                for folder, folders, files in self.fs.walk(self.root, detail=True, on_error="raise"):
                    in_order = sorted(folders.items())
                    folders.clear()
                    folders.update(in_order)  # which is how they are then walked
                    for name in sorted(filter(None, files)):
                        info = files[name]
                        path = f"{folder}/{name}".removeprefix(f"{self.root}/")
                        yield path, int(info["size"]), _tag(info)
            except FileNotFoundError as error:
                raise self._nothing() from error

    def listed(self, folder: str) -> list[str]:
        """The names of what is in a folder, sorted; none where there is no such folder."""
        place = f"{self.root}/{folder}".rstrip("/")
        with _told(self.url):
            try:
                paths = [path.rstrip("/") for path in self.fs.ls(place, detail=False)]
            except FileNotFoundError:
                return []
        # An empty folder that a bucket's console has made is an object of its own, and listed as its content.
        return sorted(path.rpartition("/")[2] for path in paths if path != place)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        with _told(self.url):
            return bool(self.fs.isfile(f"{self.root}/{name}"))

    def read(self, name: str = "") -> bytes:
        """The content of a file; without a name, of the very file at the URL."""
        with _told(self.url):
            data: bytes = self.fs.cat_file(f"{self.root}/{name}" if name else self.root)
            return data

    def fetch(self, name: str, file: Path) -> None:
        """Copies a file to this machine, whole or not at all."""

        def parts() -> Iterator[bytes]:
            with _told(self.url), self.fs.open(f"{self.root}/{name}", "rb") as there:
                yield from iter(partial(there.read, 1 << 20), b"")

        write_bytes(file, parts(), sync=False)  # what fails here is this machine's, and there the storage's

    def send(self, file: BinaryIO, name: str) -> None:
        """Writes an open file to a name."""
        with _told(self.url):
            self._make_folder(f"{self.root}/{name}")
            with self.fs.open(f"{self.root}/{name}", "wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)

    def send_new(self, file: Path, name: str) -> None:
        """Writes a file of this machine to a name that must be new; FileExistsError where there is one."""
        with _told(self.url):
            self._make_folder(f"{self.root}/{name}")
            if self.has(name):  # some systems of fsspec do not look themselves
                raise FileExistsError(name)
            self.fs.put_file(str(file), f"{self.root}/{name}", mode="create")

    def create(self, name: str, data: bytes) -> None:
        """Writes a file that must be new; FileExistsError where another process has made it before."""
        with _told(self.url):
            self._make_folder(f"{self.root}/{name}")
            self.fs.pipe_file(f"{self.root}/{name}", data, mode="create")

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        try:
            with _told(self.url):
                self.fs.rm_file(f"{self.root}/{name}")
        except FileNotFoundError:
            pass

    def _nothing(self) -> StoreError:
        return StoreError(f"There is nothing at {self.url}. Is the name right, and may you see it?")

    def _make_folder(self, path: str) -> None:
        """Servers with true folders need them."""
        if self.fs.protocol in ("file", ("file", "local"), "sftp", ("sftp", "ssh")):
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)


def _tag(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in TAGS if info.get(key)), "")


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Within the block, whatever a file system of fsspec raises is said in words."""
    try:
        yield
    except (ConfigError, StoreError, FileNotFoundError, FileExistsError):
        raise
    except ImportError as error:
        raise ConfigError(
            f"{url} needs a package that is not installed: {error}. For s3:// it is the extra s3: "
            "pip install '.[s3]' in a clone."
        ) from error
    except PermissionError as error:
        raise StoreError(
            f"{url} may not be read or written with the credentials of the environment: {error}"
        ) from error
    except Exception as error:  # clients of object stores raise classes of their own
        if "Protocol not known" in str(error):
            raise ConfigError(f"fsspec knows no such place: {url}") from error
        raise StoreError(f"{url} cannot be reached: {error}") from error
