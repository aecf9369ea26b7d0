"""What lies on disk, and how it gets there whole: atomic files and folders, tensors, stage stamps, locks, progress.

A stage is done when its `stage.json` exists; that file is written last, by rename. Nothing here knows what a stage computes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .distributed import leads

T = TypeVar("T")


class StoreError(RuntimeError):
    """The disk or the run folder refuses; the message says where and what to do."""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = "A limit on file sizes is reached" if error.errno == errno.EFBIG else "The disk is full"
            raise StoreError(f"{full} at {path}. Free some room and run the same command again.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(
                f"{path} cannot be written ({error.strerror}). Choose another folder or mend its permissions."
            ) from error
        raise


def write_bytes(path: Path, data: bytes, sync: bool = True) -> None:
    """Writes a whole file or nothing, by rename. Without `sync` a power cut (not a kill) may leave it empty."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, indented, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON; StoreError names the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is damaged ({error}). Remove it and run the same command again.") from error


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as one safetensors file, whole or not at all."""
    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {})))


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file; StoreError names the file when it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise StoreError(f"{path} is damaged ({error}). Remove its folder and run the same command again.") from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, which takes `path`'s place when the block ends well and vanishes when it does not."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            yield fresh
            fresh.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            os.replace(fresh, path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


class StageChanged(StoreError):
    """A finished stage was made from other inputs than the ones asked for now."""


class RunDir:
    """One run's folder: stages are sub-folders, each with a `stage.json` that is written last and says what it was made from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process; StoreError when another one holds it. A killed process holds nothing."""
        with _explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                raise StoreError(
                    f"Another oodream process is working in {self.path}. Wait for it or choose another --run."
                ) from None
            try:
                yield
            finally:
                lock.release()

    def stamp(self, stage: str) -> dict[str, Any] | None:
        """The finished stage's `stage.json`, or None when it is not finished."""
        file = self.path / stage / "stage.json"
        return read_json(file) if file.exists() else None

    def changed(self, stage: str, inputs: Mapping[str, Any]) -> list[str]:
        """How these inputs differ from those the stage was made, or begun, from."""
        stamp = self.stamp(stage)
        begun = self.path / stage / "begun.json"
        made_from = stamp["inputs"] if stamp else read_json(begun) if begun.exists() else None
        return [] if made_from is None else differing(made_from, json.loads(json.dumps(inputs)))

    def is_done(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the stage is finished with these inputs; StageChanged names what differs when it was made from others."""
        if changed := self.changed(stage, inputs):
            listed = "; ".join(changed[:4])
            raise StageChanged(
                f"{self.path / stage} was made from other inputs ({listed}). "
                f"Add --redo changed to make {stage} and what depends on it afresh, or choose another --run."
            )
        return self.stamp(stage) is not None

    def begin(self, stage: str, inputs: Mapping[str, Any]) -> Path:
        """The stage's folder, marked with the inputs its unfinished contents belong to."""
        write_json(self.path / stage / "begun.json", inputs)
        return self.path / stage

    def finish(self, stage: str, inputs: Mapping[str, Any], seconds: float, summary: Mapping[str, Any]) -> None:
        """Stamps the stage as done."""
        write_json(self.path / stage / "stage.json", {"inputs": inputs, "seconds": round(seconds, 2), "summary": summary})
        (self.path / stage / "begun.json").unlink(missing_ok=True)

    def borrow(self, stage: str, inputs: Mapping[str, Any], others: Sequence[RunDir]) -> None:
        """Takes a stage over from the first other run that finished it with equal inputs, as links, unless there is one here."""
        if (self.path / stage).exists():
            return
        for other in others:
            if other.stamp(stage) and not other.changed(stage, inputs):
                with atomic_folder(self.path / stage) as fresh:
                    shutil.copytree(other / stage, fresh, dirs_exist_ok=True, copy_function=_link)
                return

    def remove(self, stage: str) -> None:
        """Removes a stage; its stamp goes first, so that half a removal is never taken for a finished stage."""
        (self.path / stage / "stage.json").unlink(missing_ok=True)
        shutil.rmtree(self.path / stage, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # other disks, other systems
        shutil.copy2(source, target)


def differing(old: Any, new: Any, at: str = "") -> list[str]:
    """Where two JSON values differ, as "path: old -> new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in sorted({*old, *new}) for d in differing(old.get(k), new.get(k), f"{at}.{k}" if at else k)]
    return [] if old == new else [f"{at}: {old} -> {new}"]


def progress(items: Iterable[T], *, total: int, done: int = 0, what: str, unit: str) -> Iterable[T]:
    """Iterates with a progress line: share, rate and time left (plain lines a minute apart where there is no terminal)."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    interval = 30.0 if quiet else 0.2
    return tqdm(
        items, total=total, initial=done, desc=what, unit=unit, mininterval=interval, maxinterval=60, dynamic_ncols=not quiet,
        disable=not leads(),
    )  # fmt: skip
