"""run.folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from ..core.errors import StoreError
from ..core.files import _explained, atomic_folder, read_json, write_json
from ..core.types import Json


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

    def finish(
        self, stage: str, inputs: Mapping[str, Any], seconds: float, summary: Mapping[str, Any]
    ) -> None:
        """Stamps the stage as done."""
        write_json(
            self.path / stage / "stage.json",
            {"inputs": inputs, "seconds": round(seconds, 2), "summary": summary},
        )
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
        return [
            d
            for k in sorted({*old, *new})
            for d in differing(old.get(k), new.get(k), f"{at}.{k}" if at else k)
        ]
    return [] if old == new else [f"{at}: {old} -> {new}"]


def hashed(inputs: Json) -> str:
    """The hash by which a stage's inputs are known to the stages after it."""
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=8).hexdigest()
