"""What a command makes for a bucket: made here, and sent when it is whole.

Until then the bucket has nothing of it. What a killed command has begun stays on this machine, and the same
command goes on with it. A file in a bucket is there as a whole or not at all. While the files of a folder are
sent, a claim lies beside them, which can be made only once: so two machines never send to one folder, and
what was half sent is known as such, and taken back.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import StoreError, shown
from ..core.files import encode_json, parse_json, write_bytes
from ..core.folders import held
from ..core.options import ConfigError
from ..core.progress import counter
from ..core.sealed import file_hash
from ..core.storage import PRIVATE, Storage, cached_at, is_url

__all__ = ["delivered"]

BEGUN = ".begun"  # hidden, for beside it lie the folders of other URLs
CLAIM = "sending.json"
CACHE = "cache"  # a folder of what is of use on this machine alone
THREADS = 16


@contextmanager
def delivered(url: str, last: str | None = None, again: bool = False, beside: str = "") -> Iterator[Path]:
    """A path here for the block to make a file at, or with `last` a folder. When the block ends well, it goes
    to the URL.

    A file that is at the URL already lies at the path, too: the block can leave it as it is, and another one
    is not sent. With a file goes one of its name and `beside` behind it, where the block makes one.

    `last` names the folder's file without which it is none, if there is such a file: it is sent after all
    others. There must be no folder at the URL yet, unless it may be written `again`: then files there are
    replaced, and the folder `cache` in it stays here.

    Raises StoreError before the block where the URL cannot be written, is a folder that is taken, or where
    another process on this machine makes it; and after the block where it cannot be sent. ConfigError for a
    file or folder without a name.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if not is_url(parent):
        raise ConfigError(f"{url} is a whole bucket. Name a place in it: {url.rstrip('/')}/NAME.")
    begun = cached_at(url, "out") / BEGUN
    path, storage = begun / name, Storage(parent if last is None else url)
    others = (begun / f"{name}{beside}",) if beside else ()
    place = _File(storage, path, others) if last is None else _Folder(storage, path, last, again)
    with held(begun, f"Another oodream process is making {url}. Wait for it, or choose another place."):
        if not again:
            _remove(path)
        with place.opened():
            yield path
        try:
            place.send()
        except (StoreError, FileNotFoundError) as error:
            raise StoreError(
                f"{error} What was made is kept in {shown(begun)}: when nothing is in the way any more, the "
                "same command sends it."
            ) from error
        for done in [one for one in path.iterdir() if one.name != CACHE] if again else [begun]:
            _remove(done)


@dataclass
class _File:
    """A file of a bucket's folder that is to be new, or to stay as it is; with those `beside` it."""

    storage: Storage
    path: Path
    beside: tuple[Path, ...]
    there: str = ""
    """hash of the file that was there already"""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within the block a copy lies here of what is there already. StoreError where nothing can be
        written.
        """
        self.storage.reach(write=True)
        files = [file for file in (self.path, *self.beside) if self.storage.has(file.name)]
        if self.path not in files:
            yield
            return
        for file in files:
            self.storage.fetch(file.name, file)
        self.there = file_hash(self.path)
        try:
            yield
        except Exception:  # the block has refused the copy
            for file in files:
                _remove(file)
            raise

    def send(self) -> None:
        """Sends those beside first: so a file that is there has them, whenever this process is killed."""
        if self.there == file_hash(self.path):
            return
        if self.storage.has(self.path.name):
            raise self._taken()
        for file in self.beside:
            if file.exists():
                with file.open("rb") as opened:
                    self.storage.send(opened, file.name)
        try:
            self.storage.send_new(self.path, self.path.name)
        except FileExistsError:
            raise self._taken() from None

    def _taken(self) -> StoreError:
        return StoreError(
            f"{self.storage.url}/{self.path.name} is there already. Remove it, or write to another file."
        )


@dataclass(frozen=True)
class _Folder:
    """A folder in a bucket, new or written again. What this machine claims it with lies beside its copy."""

    storage: Storage
    path: Path
    last: str
    again: bool

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Takes back what this machine has half sent. StoreError where the folder cannot be written, is
        another machine's, or should be new and is not.
        """
        self.storage.reach(write=True)
        self._take_back()
        self._check_free()
        yield

    def send(self) -> None:
        """Sends the files; StoreError where another machine does, or has done so meanwhile."""
        names = [name for name in _names(self.path) if not (self.again and name.startswith(f"{CACHE}/"))]
        me = {"by": f"process {os.getpid()} on {socket.gethostname()}", "id": secrets.token_hex(8)}
        claim = encode_json({**me, "files": names})
        write_bytes(self.path.with_name(CLAIM), claim)
        try:
            self.storage.create(f"{PRIVATE}/{CLAIM}", claim)
        except FileExistsError:
            raise self._claimed() from None
        try:
            self._check_free()
        except StoreError:
            self.storage.remove(f"{PRIVATE}/{CLAIM}")
            raise
        if self.last and self.again:
            self.storage.remove(self.last)
        others = [name for name in names if name != self.last]

        def send(name: str) -> None:
            with (self.path / name).open("rb") as file:
                self.storage.send(file, name)

        with (
            ThreadPoolExecutor(THREADS) as pool,
            counter(total=len(others), what=f"sending {shown(self.storage.url)}", unit="file") as line,
        ):
            for _ in pool.map(send, others):
                line.update()
        if self.last:
            send(self.last)
        self.storage.remove(f"{PRIVATE}/{CLAIM}")

    def _check_free(self) -> None:
        if not self.again and any(name != PRIVATE for name in self.storage.listed("")):
            raise StoreError(
                f"{self.storage.url} holds something already. Choose another folder, or empty it."
            )

    def _take_back(self) -> None:
        try:
            claim = self.storage.read(f"{PRIVATE}/{CLAIM}")
        except FileNotFoundError:
            return
        mine = self.path.with_name(CLAIM)
        if not mine.exists() or mine.read_bytes() != claim:
            raise self._claimed()
        for name in reversed(parse_json(claim.decode())["files"]):
            self.storage.remove(name)
        self.storage.remove(f"{PRIVATE}/{CLAIM}")

    def _claimed(self) -> StoreError:
        return StoreError(
            f"Another machine is sending to {self.storage.url}, or was killed at it. Wait for it, give its "
            "command again there, or remove all that is in it."
        )


def _names(path: Path) -> list[str]:
    """The names of the files below a folder, but for hidden ones, in order."""
    files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    return sorted(file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts))


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
