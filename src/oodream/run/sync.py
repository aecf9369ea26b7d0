"""A folder that is worked in here and kept in a bucket: what was finished on one machine goes on on another.

A bucket has no locks and no renaming, so a journal beside the files says which of them count: objects that
are each made once, in turn, and none of which can be made twice. An entry says which files came, changed
or went, with their hashes, and it is written after the files themselves. Who would write an entry that is
there already has been overtaken by another machine, and stops. So nothing waits for a lock that a killed
machine left behind.
"""

from __future__ import annotations

import _thread
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..core.errors import StoreError, shown
from ..core.files import encode_json, read_json, write_json
from ..core.folders import held
from ..core.sealed import file_hash, hash_of
from ..core.storage import PRIVATE, Storage, cached_at
from .layout import Layout

__all__ = ["SECONDS", "fetched", "is_kept", "synchronised"]

SECONDS = 60.0
"""between two looks for what is new"""
JOURNAL, STATE, LOCK = PRIVATE, ".sync.json", ".sync.lock"
STAMP = "stage.json"  # says that all beside it is there: it comes last, and goes first
LOCAL = ("cache", "process.json", "process.out", "process.err", "process.stop")  # of no use elsewhere

Say = Callable[[str], None]


class Overtaken(StoreError):
    """Another machine has gone on with what this one works in."""


@dataclass(frozen=True)
class Kept:
    """A file in the bucket: the object's name, its size in bytes and its hash."""

    key: str
    size: int
    hash: str


@contextmanager
def synchronised(url: str, say: Say) -> Iterator[Path]:
    """A folder here with all that the bucket has, which goes there while the block lasts and when it ends,
    however it ends.

    Raises StoreError where the bucket cannot be read and written, or another machine has gone on meanwhile.
    """
    storage, folder, done = Storage(url), cached_at(url, "runs"), threading.Event()
    storage.reach(write=True)
    with held(folder, f"Another oodream process is working in {shown(folder)}. Wait for it.", name=LOCK):
        synced = _Synced(storage, folder, say)
        synced.open()
        thread = threading.Thread(target=synced.watch, args=(done,), daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            done.set()
            thread.join()
            synced.close()


def fetched(url: str, wanted: Callable[[str], bool]) -> Path:
    """A copy here of those files at a URL whose names are wanted: as the journal has them, where there is
    one.
    """
    storage, folder = Storage(url), cached_at(url, "read")
    storage.reach()
    journal = _Journal(storage)
    journal.read()
    files = journal.files or {name: Kept(name, size, "") for name, size, _ in storage.walk()}
    for name in filter(wanted, _stamps_last(files)):
        file = _inside(folder, name)
        if not _is_copy(file, files[name]):
            _fetch(storage, files[name], file)
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        name = file.relative_to(folder).as_posix()
        if wanted(name) and name not in files:  # a copy from before it was removed there
            file.unlink()
    return folder


def is_kept(url: str) -> bool:
    """Whether a run is kept at a URL, as `synchronised` keeps one."""
    return bool(Storage(url).listed(JOURNAL))


class _Journal:
    """The entries so far: how many, which files count, and whether the last one closed it."""

    def __init__(self, storage: Storage) -> None:
        self.storage, self.turn, self.files, self.open_by = storage, 0, dict[str, Kept](), ""

    def newest(self) -> int:
        names = [name for name in self.storage.listed(JOURNAL) if name.endswith(".json")]
        return max((int(name.removesuffix(".json")) for name in names), default=0)

    def read(self) -> None:
        """Reads from the last entry on that names all files."""
        self.turn, entries = self.newest(), []
        for turn in range(self.turn, 0, -1):
            entries.append(json.loads(self.storage.read(f"{JOURNAL}/{turn:08}.json")))
            if entries[-1]["all"]:
                break
        for entry in reversed(entries):
            for name, kept in entry["files"].items():
                self.files.pop(name, None)
                if kept:
                    self.files[name] = Kept(**kept)
        self.open_by = entries[0]["open_by"] if entries else ""

    def overtaken(self) -> Overtaken:
        return Overtaken(
            f"Another machine has gone on with {self.storage.url}, so this one stops. What it has finished "
            "in the last minute is made again there."
        )

    def write(self, changes: Mapping[str, Kept | None], *, all_files: bool = False, open_by: str) -> None:
        """The next entry. Raises Overtaken where another machine has written it."""
        files = {name: kept and asdict(kept) for name, kept in changes.items()}
        entry = encode_json({"all": all_files, "open_by": open_by, "files": files})
        try:
            self.storage.create(f"{JOURNAL}/{self.turn + 1:08}.json", entry)
        except FileExistsError:
            raise self.overtaken() from None
        self.turn += 1
        for name, kept in changes.items():
            old = self.files.pop(name, None)
            if kept:
                self.files[name] = kept
            if old and (kept is None or kept.key != old.key):
                self.storage.remove(old.key)


class _Synced:
    """A folder and its bucket. `hashes` holds of every file its size, its time and its hash, as last seen."""

    def __init__(self, storage: Storage, folder: Path, say: Say) -> None:
        self.storage, self.folder, self.say = storage, folder, say
        self.journal, self.hashes = _Journal(storage), dict[str, tuple[int, int, str]]()
        self.me = f"process {os.getpid()} on {socket.gethostname()}"
        self.error: Overtaken | None = None

    def open(self) -> None:
        """Brings the folder to where the bucket is, unless it was left further on this machine; tells
        others.
        """
        state = self.folder / STATE
        turn, opened = read_json(state)["turn"] if state.exists() else -1, False
        while not opened:
            self.journal = _Journal(self.storage)
            self.journal.read()
            if self.journal.turn != turn:
                if self.journal.open_by:
                    self.say(
                        f"  note: {self.journal.open_by} was at work in {self.storage.url}; if it still is, "
                        "it stops."
                    )
                self._pull()
            turn = self.journal.turn
            with suppress(Overtaken):  # the other machine wrote once more meanwhile
                self.journal.write(dict(self.journal.files), all_files=True, open_by=self.me)
                opened = True
        self._save()

    def _pull(self) -> None:
        """Makes the folder what the bucket is. Of what is damaged there the whole stage is made again."""
        files, broken = self.journal.files, set[str]()
        for name in _stamps_last(self._here(), reverse=True):
            if name not in files or (name.endswith(STAMP) and self._hash(name) != files[name].hash):
                (self.folder / name).unlink()
        for name in _stamps_last(files):
            if name.endswith(STAMP) and any(other.startswith(name.removesuffix(STAMP)) for other in broken):
                continue
            try:
                if self._hash(name) != files[name].hash:
                    _fetch(self.storage, files[name], _inside(self.folder, name))
            except Damaged as error:
                broken.add(name)
                self.say(f"  note: {error}")

    def watch(self, done: threading.Event) -> None:
        """Sends what is new, again and again. What fails is tried again, unless another machine goes on."""
        while not done.wait(SECONDS):
            try:
                self.push()
            except Overtaken as error:
                self.error = error
                _thread.interrupt_main()
                return
            except StoreError as error:
                self.say(f"  note: {error} It is tried again.")

    def push(self, closing: bool = False) -> None:
        """Sends what has changed since the last time. Raises Overtaken where another machine goes on."""
        if self.journal.newest() > self.journal.turn:
            raise self.journal.overtaken()
        stamps = {
            name for name in self._here() if name.endswith(STAMP)
        }  # before the files that they stand for
        here = [name for name in self._here() if not name.endswith(STAMP) or name in stamps]
        changes: dict[str, Kept | None] = {
            name: kept for name in _stamps_last(here) if (kept := self._send(name)) is not None
        }
        changes |= {name: None for name in self.journal.files if not (self.folder / name).exists()}
        if changes or closing:
            self.journal.write(changes, open_by="" if closing else self.me)
            self._save()

    def close(self) -> None:
        """Sends the rest. Raises StoreError where that cannot be done."""
        if self.error:
            raise self.error
        try:
            self.push(closing=True)
        except Overtaken:
            raise
        except StoreError as error:
            raise StoreError(
                f"{error} What the bucket does not have yet lies in {shown(self.folder)}: the same command "
                "sends it."
            ) from error

    def _send(self, name: str) -> Kept | None:
        """Sends a file; None where the bucket has it as it is, or it is gone meanwhile."""
        kept, digest = self.journal.files.get(name), self._hash(name)
        if not digest or (kept and kept.hash == digest):
            return None
        key = name if kept is None else f"{name}.{digest[:8]}"  # what counts is never written over
        with (self.folder / name).open("rb") as file:
            digest = hash_of(file)  # of the very content that is sent, whatever takes its place
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            self.storage.send(file, key)
        return Kept(key, size, digest)

    def _here(self) -> list[str]:
        """The names of the folder's files, but for hidden ones and what is of no use elsewhere."""
        names = []
        for folder, folders, files in os.walk(self.folder):
            at = Path(folder).relative_to(self.folder)
            is_run = at == Path() or Layout(Path(folder)).manifest.name in files  # a comparison's are within
            local = LOCAL if is_run else ()
            folders[:] = [name for name in folders if not name.startswith(".") and name not in local]
            names += [
                (at / name).as_posix() for name in files if not name.startswith(".") and name not in local
            ]
        return names

    def _hash(self, name: str) -> str:
        """The hash of a file here; empty where there is none."""
        file = _inside(self.folder, name)
        try:
            stat = file.stat()
            size, time, digest = self.hashes.get(name, (-1, -1, ""))
            if (size, time) != (stat.st_size, stat.st_mtime_ns):
                digest = file_hash(file)
                self.hashes[name] = stat.st_size, stat.st_mtime_ns, digest
        except FileNotFoundError:
            return ""
        return digest

    def _save(self) -> None:
        write_json(self.folder / STATE, {"turn": self.journal.turn})


class Damaged(StoreError):
    """An object of the bucket is not there, or not what was sent."""


def _fetch(storage: Storage, kept: Kept, file: Path) -> None:
    """Brings a file here. Raises Damaged where it is not what was sent."""
    try:
        storage.fetch(kept.key, file)
    except FileNotFoundError:
        raise Damaged(f"{storage.url}/{kept.key} is missing. Its stage is made again.") from None
    if kept.hash and file_hash(file) != kept.hash:
        file.unlink()
        raise Damaged(f"{storage.url}/{kept.key} is damaged. Its stage is made again.")


def _is_copy(file: Path, kept: Kept) -> bool:
    """Whether a file here is what a journal says of it."""
    return bool(kept.hash) and file.is_file() and file_hash(file) == kept.hash


def _stamps_last(names: Iterable[str], reverse: bool = False) -> list[str]:
    """The names in order, but a stage's stamp behind all others; or just the reverse."""
    return sorted(names, key=lambda name: (name.endswith(STAMP), name), reverse=reverse)


def _inside(folder: Path, name: str) -> Path:
    """The file of that name below a folder; StoreError for a name that leads out of it."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name:
        raise StoreError(f"The bucket has a file called {name!r}, which is no name for a file here.")
    return folder / name
