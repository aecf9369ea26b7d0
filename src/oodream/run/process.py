"""`oodream run` as a process of its own, started by another program: begun, found again, watched, stopped.

The run's folder says which process works in it (`process.json`), what it has printed (`process.out` and
`process.err`), and whether it was told to stop (`process.stop`, if newer than the first). So whoever looks at
the folder knows as much as who started it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ..core.errors import StoreError, shown
from ..core.files import explained, make_folder, read_json, write_bytes, write_json
from ..core.progress import EVERY
from ..core.types import Json
from .folder import RunDir, read_manifest
from .layout import Layout

__all__ = ["Bar", "Stage", "Status", "last_begun", "process_of", "recorded", "start", "status", "stop"]

State = Literal["running", "stopping", "done", "stopped", "failed", "killed", "elsewhere"]
SENTENCE = re.compile(r"(?:^|[\r\n\]])oodream: ")  # a progress line may have no end of its own
STOPPED = "stopped."
TAIL = 16_384  # bytes at the end of what was printed
MAX_PID = 1 << 31
APART = 5.0  # seconds by which a process's start may differ when it is told twice
BAR = re.compile(r"(?P<what>[^\r\n]*?): +\d+%\|.*\| (?P<done>\d+)/(?P<total>\d+) \[[^<]*<(?P<left>[\d:?]+)")

_starting = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The work that is under way: `done` of `total`, and seconds left where they are known."""

    what: str
    done: int
    total: int
    left: float | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of a run: "done" (with its seconds), "running" or "waiting"; `expected` seconds, where another
    run or another seed tells them.
    """

    name: str
    state: Literal["done", "running", "waiting"]
    seconds: float | None = None
    expected: float | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run stands; "stopping" until a process that was told to has ended. One that is at work has no
    stages until it has said its plan. `message` is
    the command line's own sentence where it was refused or failed.
    """

    state: State
    stages: Sequence[Stage]
    bar: Bar | None = None
    left: float | None = None
    message: str = ""


def start(folder: Path, arguments: Sequence[str]) -> None:
    """Starts `oodream` with these arguments as a process that outlives this one; they must name the folder.

    What an earlier process printed is lost. Raises StoreError where one is at work in the folder.
    """
    layout = Layout(folder)
    with _starting, explained(folder):
        if process_of(folder):
            raise StoreError(f"{shown(folder)} is being worked in already. Stop it first.")
        make_folder(folder)
        with layout.said.open("wb") as said, layout.complained.open("wb") as complained:
            process = subprocess.Popen(
                [sys.executable, "-m", "oodream", *arguments], stdin=subprocess.DEVNULL, stdout=said,
                stderr=complained, start_new_session=True, env={**os.environ, EVERY: "1"},
            )  # fmt: skip
        record = {"pid": process.pid, "began": time.time(), "arguments": list(arguments)}
        write_json(layout.process, record, sealed=True)
    threading.Thread(target=process.wait, daemon=True).start()  # else it stays a zombie when it ends


def recorded(folder: Path) -> Json | None:
    """Which process was started last in a run's folder: `pid`, `began` (seconds) and `arguments`; None where
    there was none.

    Raises StoreError for a record that is damaged.
    """
    file = Layout(folder).process
    if not file.is_file():
        return None
    record = read_json(file)
    kinds = {"pid": int, "began": float, "arguments": list}
    whole = isinstance(record, dict) and all(isinstance(record.get(k), kind) for k, kind in kinds.items())
    if not (
        whole and 0 < record["pid"] < MAX_PID and all(isinstance(word, str) for word in record["arguments"])
    ):
        raise StoreError(f"{shown(file)} is damaged. Remove it.")
    return record


def process_of(folder: Path) -> psutil.Process | None:
    """The process that was started in a run's folder, if it is still at work.

    A number may be given to another process later, so it counts only with the time of its start and with its
    words.
    """
    if (record := recorded(folder)) is None:
        return None
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["began"]) < APART
        words = process.cmdline()[-len(record["arguments"]) :]
        alive = process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if alive and same and words == record["arguments"] else None


def stop(folder: Path, force: bool = False) -> None:
    """Interrupts the process at work in a run's folder, as Ctrl-C does; with `force` it is killed. Either way
    the run can go on later.

    Raises ValueError where none is at work.
    """
    if (process := process_of(folder)) is None:
        raise ValueError(f"Nothing is at work in {shown(folder)}: it has ended already.")
    process.send_signal(signal.SIGKILL if force else signal.SIGINT)
    write_bytes(Layout(folder).halted, b"")


def status(folder: Path, others: Sequence[Path] = ()) -> Status:
    """Where the run in a folder stands, and how long it may still take.

    Of its own stages those tell that are done with another seed, else those of finished `others`.
    """
    record, alive = recorded(folder), process_of(folder) is not None
    manifest = read_manifest(folder) or {}
    layout = Layout(folder)
    at_work: State = "stopping" if _modified(layout.halted) > _modified(layout.process) else "running"
    if alive and _modified(layout.manifest) <= _modified(layout.process):
        return Status(state=at_work, stages=[])
    stages = _stages(folder, [str(name) for name in manifest.get("stages", ())], alive, others)
    if alive:
        bar = _bar(layout)
        return Status(state=at_work, stages=stages, bar=bar, left=_left(stages, bar))
    message = _complaint(layout)
    finished = bool(stages) and all(stage.state == "done" for stage in stages)
    if message.startswith(STOPPED):
        return Status(state="stopped", stages=stages)
    if message:
        return Status(state="failed", stages=stages, message=message)
    state: State = "done" if finished else "killed" if record else "elsewhere"
    return Status(state=state, stages=stages)


def last_begun(folder: Path) -> float:
    """When a run last began, or was refused before it did, in seconds; 0 where neither has been."""
    layout = Layout(folder)
    return max(_modified(layout.manifest), _modified(layout.process))


def _stages(folder: Path, planned: Sequence[str], alive: bool, others: Sequence[Path]) -> list[Stage]:
    """The planned stages, or those that are done where no plan is known."""
    stamps = RunDir(folder).stamps()
    known = [stamps, *(RunDir(other).stamps() for other in others)] if alive else []
    stages, root = [], Layout(folder)
    for name in planned or stamps:
        if name in stamps:
            stages.append(Stage(name=name, state="done", seconds=stamps[name]["seconds"]))
            continue
        expected = next((s for some in known if (s := _seconds(name, some)) is not None), None)
        at_work = alive and (root.stage(name) / "begun.json").exists()
        stages.append(Stage(name=name, state="running" if at_work else "waiting", expected=expected))
    return stages


def _seconds(name: str, stamps: dict[str, Json]) -> float | None:
    """What a stage took in a run, or the same training with another seed."""
    alike = [name, *(other for other in stamps if _seedless(other) == _seedless(name))]
    return next((float(stamps[other]["seconds"]) for other in alike if other in stamps), None)


def _seedless(name: str) -> str:
    return re.sub(r"-s\d+$", "", name)


def _left(stages: Sequence[Stage], bar: Bar | None) -> float | None:
    """The seconds until all is done, where they are known for every stage that is not."""
    waiting = [stage.expected for stage in stages if stage.state == "waiting"]
    running = [stage.expected for stage in stages if stage.state == "running"]
    if running and bar and bar.left is not None:
        running = [bar.left]
    known = [seconds for seconds in (*waiting, *running) if seconds is not None]
    if not stages or len(known) < len(waiting) + len(running):
        return None
    return sum(known[: len(waiting)]) + max(known[len(waiting) :], default=0.0)


def _bar(layout: Layout) -> Bar | None:
    """The newest progress line, unless its stage is over."""
    lines = [line for line in re.split(r"[\r\n]+", _tail(layout.complained)) if line.strip()]
    match = BAR.match(lines[-1]) if lines else None
    newest = layout.complained.stat().st_mtime if match else 0
    if match is None or _modified(layout.said) > newest or match["done"] == match["total"]:
        return None
    left = None
    if "?" not in match["left"]:
        left = float(sum(60**i * int(part) for i, part in enumerate(reversed(match["left"].split(":")))))
    return Bar(what=match["what"].strip(), done=int(match["done"]), total=int(match["total"]), left=left)


def _complaint(layout: Layout) -> str:
    """The program's last sentence about what is wrong, or a fault's last line; empty where there is none."""
    text = _tail(layout.complained)
    if sentences := SENTENCE.split(text)[1:]:
        return sentences[-1].strip()
    lines = text.strip().splitlines()
    if "Traceback (most recent call last)" not in text:
        return ""
    return STOPPED if lines[-1] == "KeyboardInterrupt" else lines[-1]  # before the program was loaded


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL))
            return opened.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _modified(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0.0
