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
from ..core.storage import PRIVATE, Storage, cached_at, is_url

__all__ = ["delivered"]

BEGUN = ".begun"  # hidden, for beside it lie the folders of other URLs
CLAIM = "sending.json"
CACHE = "cache"  # a folder of what is of use on this machine alone
THREADS = 16


@contextmanager
def delivered(url: str, last: str | None = None, again: bool = False) -> Iterator[Path]:
    """A path here for the block to make a file at, or with `last` a folder. When the block ends well, it goes
    to the URL.

    `last` names the folder's file without which it is none, if there is such a file: it is sent after all
    others. There must be nothing at the URL yet, unless the folder may be written `again`: then files there
    are replaced, and the folder `cache` in it stays here.

    Raises StoreError before the block where the URL cannot be written, is taken, or where another process on
    this machine makes it; and after the block where it cannot be sent. ConfigError for a file or folder
    without a name.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if not is_url(parent):
        raise ConfigError(f"{url} is a whole bucket. Name a place in it: {url.rstrip('/')}/NAME.")
    begun = cached_at(url, "out") / BEGUN
    place = _File(Storage(parent), name) if last is None else _Folder(Storage(url), begun, last, again)
    with held(begun, f"Another oodream process is making {url}. Wait for it, or choose another place."):
        place.open()
        path = begun / name
        if not again:
            _remove(path)
        yield path
        try:
            place.send(path)
        except (StoreError, FileNotFoundError) as error:
            raise StoreError(
                f"{error} What was made is kept in {shown(begun)}: when nothing is in the way any more, the "
                "same command sends it."
            ) from error
        for done in [one for one in path.iterdir() if one.name != CACHE] if again else [begun]:
            _remove(done)


@dataclass(frozen=True)
class _File:
    """A file of a bucket's folder that is to be new."""

    storage: Storage
    name: str

    def open(self) -> None:
        """StoreError where it cannot be written, or is there."""
        self.storage.reach(write=True)
        if self.storage.has(self.name):
            raise self._taken()

    def send(self, path: Path) -> None:
        try:
            self.storage.send_new(path, self.name)
        except FileExistsError:
            raise self._taken() from None

    def _taken(self) -> StoreError:
        return StoreError(
            f"{self.storage.url}/{self.name} is there already. Remove it, or write to another file."
        )


@dataclass(frozen=True)
class _Folder:
    """A folder in a bucket, new or written again. What this machine claims it with lies in `begun`, too."""

    storage: Storage
    begun: Path
    last: str
    again: bool

    def open(self) -> None:
        """Takes back what this machine has half sent. StoreError where the folder cannot be written, is
        another machine's, or should be new and is not.
        """
        self.storage.reach(write=True)
        self._take_back()
        self._check_free()

    def send(self, path: Path) -> None:
        """Sends the files; StoreError where another machine does, or has done so meanwhile."""
        names = [name for name in _names(path) if not (self.again and name.startswith(f"{CACHE}/"))]
        me = {"by": f"process {os.getpid()} on {socket.gethostname()}", "id": secrets.token_hex(8)}
        claim = encode_json({**me, "files": names})
        write_bytes(self.begun / CLAIM, claim)
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
            with (path / name).open("rb") as file:
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
        mine = self.begun / CLAIM
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
