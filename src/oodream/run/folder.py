"""A run's folder: stages are sub-folders, each with a `stage.json` that is written last and says what it was
made from.

What a stage computes, and which files it writes, is not known here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import StoreError, are, brief, listed, shown
from ..core.files import atomic_folder, check_way, json_lines, read_json, sweep, write_json
from ..core.folders import held
from ..core.sealed import damaged, file_hash
from ..core.types import Json
from .changes import differences, in_words
from .layout import FORMAT, RECORD, Layout

IMAGES = "images"  # how many there are, among the sizes of a stage's files
SECONDS = 120.0  # that a network file system may take to show what is there
MARKS = ("stage.json", "begun.json")  # of a stage: that it is finished, that it is begun
STARTED = "process"  # what the files of a run that was started elsewhere begin with, before it has begun

__all__ = ["RunDir", "StageChanged", "check_place", "inputs_hash", "read_manifest"]


class StageChanged(StoreError):
    """A finished stage was made from other inputs than the ones asked for now."""


class RunDir:
    """One run's folder, with its stages' stamps."""

    def __init__(self, path: Path) -> None:
        self.path, self.layout = path, Layout(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for this process, without what a killed one left half-written.

        Raises StoreError when another process holds it. A killed process holds nothing.
        """
        busy = f"Another oodream process is working in {self.path}. Wait for it or choose another --run."
        with held(self.path, busy):
            sweep(self.path)
            yield

    def stamp(self, stage: str) -> Json | None:
        """The finished stage's `stage.json`, or None when it is not finished.

        Raises StoreError where the file is not what `finish` wrote.
        """
        file = self.path / stage / "stage.json"
        if not file.exists():
            return None
        stamp = self._read(file, stage)
        parts: dict[str, Any] = {"inputs": dict, "seconds": (int, float), "summary": dict, "files": dict}
        if (
            not isinstance(stamp, dict)
            or not all(isinstance({"files": {}, **stamp}.get(k), v) for k, v in parts.items())
            or not 0 <= stamp["seconds"] < math.inf
        ):
            raise StoreError(self._damaged(stage, file.name))
        return stamp

    def _read(self, file: Path, stage: str) -> Any:
        """What a stage's mark holds; StoreError where it is damaged."""
        try:
            return read_json(file)
        except StoreError as error:
            raise StoreError(self._damaged(stage, file.name)) from error

    def stamps(self) -> dict[str, Json]:
        """The stamps of all finished stages by name, in the order in which they were finished."""
        files = [file for depth in ("*", "*/*") for file in self.path.glob(f"{depth}/stage.json")]
        files.sort(key=lambda file: file.stat().st_mtime_ns)
        names = (file.parent.relative_to(self.path).as_posix() for file in files)
        return {name: stamp for name in names if (stamp := self.stamp(name))}

    def changes(self, stage: str, inputs: Mapping[str, Any]) -> list[str]:
        """How these inputs differ from those the stage was made, or begun, from."""
        stamp, begun = self.stamp(stage), self.path / stage / "begun.json"
        made_from = stamp["inputs"] if stamp else self._read(begun, stage) if begun.exists() else None
        return [] if made_from is None else differences(made_from, json.loads(json.dumps(inputs)))

    def is_done(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the stage is finished with these inputs.

        Raises StageChanged, which names what differs, when the stage was made from others.
        """
        if changes := self.changes(stage, inputs):
            why = listed(map(in_words, changes), "; ")
            raise StageChanged(
                f"{self.path / stage} was made from other inputs ({why}). "
                f"Add --redo changed to make {stage} and what depends on it afresh, or choose another --run."
            )
        return self.stamp(stage) is not None

    def begin(self, stage: str, inputs: Mapping[str, Any]) -> float:
        """Marks the stage's folder with the inputs that its unfinished contents belong to; returns the
        seconds that were spent on these before.
        """
        mark = self.path / stage / "begun.json"
        earlier = _seconds_since(mark)
        write_json(mark, inputs, sealed=True)
        if earlier:
            os.utime(mark, (began := time.time() - earlier, began))
        return earlier

    def finish(
        self, stage: str, inputs: Mapping[str, Any], seconds: float, summary: Mapping[str, Any]
    ) -> None:
        """Stamps the stage as done, with the sizes and hashes of its files."""
        sweep(self.path / stage)
        stamp = {"inputs": inputs, "seconds": round(seconds, 2), "summary": summary}
        files = {"files": self._sizes(stage), "hashes": self._hashes(stage)}
        write_json(self.path / stage / "stage.json", stamp | files, sealed=True)
        (self.path / stage / "begun.json").unlink(missing_ok=True)

    def wait_for(self, stage: str, seconds: float = SECONDS) -> None:
        """Returns when this process sees the stamp of a stage that another one has finished.

        A network file system may show a folder's files late; the stamp is its last one. Raises StoreError
        where it is not to be seen for so long.
        """
        until = time.monotonic() + seconds
        while not (self.path / stage / "stage.json").exists():
            if time.monotonic() > until:
                raise StoreError(
                    f"{self.path / stage} is finished on another machine, and not to be seen here for "
                    f"{seconds:g} seconds. All machines need one common disk; run the same command again."
                )
            time.sleep(0.05)

    def check_whole(self, stage: str) -> None:
        """Raises StoreError, which names the files, where a finished stage lost some or some are not as they
        were.

        Images, and latents that are imagined, are hashed as well, and compared with the stage's record.
        """
        if (stamp := self.stamp(stage)) is None:
            return
        recorded, files = stamp.get("files", {}), self._sizes(stage)
        changed = {name for name, size in recorded.items() if files.get(name) != size}
        hashes = ((self.path / stage / name, value) for name, value in stamp.get("hashes", {}).items())
        changed |= {os.path.relpath(file, self.path / stage) for file in damaged(hashes)}
        if changed == {IMAGES}:
            raise StoreError(
                f"{self.path / stage} has {files.get(IMAGES, 0)} of {recorded[IMAGES]} images. {self._mend()}"
            )
        if changed := changed - {IMAGES}:
            raise StoreError(self._damaged(stage, *sorted(changed)))
        self.check_record(stage)

    def check_file(self, file: Path) -> None:
        """Raises StoreError where a file is not the one that its stage had when it was finished."""
        stage = "scores" if file == self.layout.results else file.parent.relative_to(self.path).as_posix()
        stamp = self.stamp(stage)
        name = os.path.relpath(file, self.path / stage)
        value = stamp.get("hashes", {}).get(name) if stamp else None
        if value is not None and (not file.exists() or file_hash(file) != value):
            raise StoreError(self._damaged(stage, name))

    def check_record(self, stage: str) -> None:
        """Raises StoreError, which says how to mend them, where files that a finished stage has drawn are not
        those of its record.
        """
        record = self.path / stage / RECORD
        if self.stamp(stage) is None or not record.exists():
            return
        self.check_file(record)
        lines = json_lines(record)
        if bad := damaged((record.parent / line["file_name"], line["hash"]) for line in lines):
            names = sorted(str(file.relative_to(record.parent)) for file in bad)
            raise StoreError(f"{are(names)} missing or damaged in {record.parent}. {self._mend()}")

    def _damaged(self, stage: str, *names: str) -> str:
        said = f"{are([os.path.normpath(self.path / stage / name) for name in names])} missing or damaged."
        if names == (RECORD,):
            also = self.path / stage / "stage.json"
            return f"{said} Remove it and {also}, and run the same command again: its images are kept."
        return f"{said} Make the stage again: the command of the run with --redo {stage}"

    def _mend(self) -> str:
        return f"Mend them with: oodream decode {self.path} --verify"

    def _own(self, stage: str) -> dict[str, Path]:
        """A stage's files by name, but for its marks; the scores' results lie above."""
        folder = self.path / stage
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        own = {file.name: file for file in files if file.is_file() and file.name not in MARKS}
        if stage == "scores" and self.layout.results.exists():
            own[f"../{self.layout.results.name}"] = self.layout.results
        return own

    def _sizes(self, stage: str) -> dict[str, int]:
        """The sizes of a stage's files by name, and how many images lie in its class folders."""
        folder, files = self.path / stage, self._own(stage)
        if not folder.is_dir():
            return {}
        images = sum(1 for p in folder.iterdir() if p.is_dir() for _ in p.glob("[!.]*"))
        return {**{name: file.stat().st_size for name, file in files.items()}, IMAGES: images}

    def _hashes(self, stage: str) -> dict[str, str]:
        """The hashes of a stage's files by name, but for those that a record has."""
        files = self._own(stage)
        return {name: file_hash(f) for name, f in files.items() if RECORD not in files or name == RECORD}

    def borrow(self, stage: str, inputs: Mapping[str, Any], others: Sequence[RunDir]) -> None:
        """Links a stage from the first other run that finished it with equal inputs, unless there is one
        here.
        """
        if (self.path / stage).exists():
            return
        for other in others:
            if other.stamp(stage) and not other.changes(stage, inputs):
                with atomic_folder(self.path / stage) as fresh:
                    shutil.copytree(other.path / stage, fresh, dirs_exist_ok=True, copy_function=_link)
                return

    def remove(self, stage: str) -> None:
        """Removes a stage; its stamp goes first, so that half a removal is never a finished stage."""
        (self.path / stage / "stage.json").unlink(missing_ok=True)
        shutil.rmtree(self.path / stage, ignore_errors=True)


def _seconds_since(mark: Path) -> float:
    """From when a mark was made, if it was, until something was last put into its folder, as times tell."""
    if not mark.exists():
        return 0.0
    newest = max(Path(at).stat().st_mtime for at, _, _ in os.walk(mark.parent))
    return max(0.0, newest - mark.stat().st_mtime)


def check_place(path: Path) -> None:
    """Raises StoreError for a folder that holds something and is no run, whose files would be taken for a
    run's and be removed as such, and where a file is in the way of one.
    """
    check_way(path)
    runs_have = ("run.json", *(f"{depth}/{mark}" for depth in ("*", "*/*") for mark in MARKS))
    if not path.is_dir() or any(any(path.glob(name)) for name in runs_have):
        return
    if foreign := sorted(one.name for one in path.iterdir() if not one.name.startswith((".", STARTED))):
        raise StoreError(
            f"{shown(path)} is no run, and holds something: {listed(foreign)}. Choose another --run."
        )


def read_manifest(path: Path) -> Json | None:
    """The run's `run.json`, or None where there is none.

    Raises StoreError for a run of another format, or a file that is not a manifest.
    """
    file = Layout(path).manifest
    if not file.exists():
        return None
    manifest = read_json(file)
    kinds = {"config": dict, "command": str, "stages": list, "versions": dict}
    whole = isinstance(manifest, dict) and "config" in manifest
    if not whole or not all(isinstance(manifest.get(key, kind()), kind) for key, kind in kinds.items()):
        raise StoreError(f"{file} is damaged. Restore it, or choose another --run.")
    if (version := manifest.get("format", 1)) != FORMAT:
        made_by = manifest.get("versions", {}).get("oodream", "another version")
        raise StoreError(
            f"{path} is a run of format {brief(version)} (oodream {shown(str(made_by))}), and this version "
            f"reads format {FORMAT}: choose another --run, or remove that one."
        )
    return manifest


def inputs_hash(inputs: Json) -> str:
    """The hash by which a stage's inputs are known to the stages after it."""
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=8).hexdigest()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # other disks, other systems
        shutil.copy2(source, target)
