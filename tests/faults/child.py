"""Commands of the program in forked children, to which faults happen: a kill or Ctrl-C at a moment, a full
disk, memory that gives out, another clock, renames that are seen late.

A fork has all imports behind it, so that a whole tiny run takes seconds. Moments are counted in events: what
changes a file below `room`, just before it does so (audit events of Python).
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oodream.cli.main import main

__all__ = ["Ended", "Fault", "at_event", "cpu_seconds", "full_disk", "out_of_memory", "run"]

CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.copyfile"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NOT_COUNTED = ("/.lock", ".pyc")

Fault = Callable[[Path], None]
"""what a child does before the command: it takes the room's folder"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code (-9: killed), what it said, seconds of the clock and of processors,
    and how many events it came to.
    """

    code: int
    out: str
    err: str
    seconds: float
    cpu: float
    events: int

    @property
    def skipped(self) -> set[str]:
        """The stages that it found finished."""
        return {line.split()[0] for line in self.out.splitlines() if line.endswith("done before")}

    @property
    def made(self) -> list[str]:
        """The stages that it finished itself."""
        stages = (line.split() for line in self.out.splitlines() if line.startswith("  "))
        return [words[0] for words in stages if len(words) > 2 and words[2] == "s" and words[1][0].isdigit()]


def run(
    args: list[str], room: Path, *faults: Fault, kill_after: float = 0.0, sent: int = signal.SIGKILL,
    limit: float = 300.0,
) -> Ended:  # fmt: skip
    """Runs `oodream` with these arguments in a fork; after `kill_after` seconds it gets the signal `sent`.

    `room` is the folder whose files count.
    """
    said = room.with_name(f"{room.name}.said")
    said.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_child(args, room, said, faults)
    due = began + kill_after if kill_after else 0.0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        now = time.monotonic()
        if due and now >= due:
            os.kill(pid, sent)
            due = 0.0
        if now - began > limit:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    counted = said / "events"
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        out=(said / "out").read_text(errors="replace"),
        err=(said / "err").read_text(errors="replace"),
        seconds=time.monotonic() - began,
        cpu=usage.ru_utime + usage.ru_stime,
        events=int(counted.read_text()) if counted.exists() else -1,
    )


def cpu_seconds() -> float:
    """Seconds of processors that this process and its ended children took."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _be_child(args: list[str], room: Path, said: Path, faults: tuple[Fault, ...]) -> None:
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        (said / "events").unlink(missing_ok=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["oodream", *args]
        count = Events(room)
        for fault in faults:
            fault(room)
        sys.addaudithook(count)
        code = main()
        count.on = False
        (said / "events").write_text(str(count.n))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Events:
    """Counts what changes files below a folder; as an audit hook it is called before each."""

    def __init__(self, room: Path) -> None:
        self.room, self.n, self.on = str(room), 0, True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and (path := self.changed(event, args)):
            self.n += 1
            self.happened(path)

    def changed(self, event: str, args: tuple[Any, ...]) -> str:
        """The path that the event changes, empty where it changes nothing that counts."""
        if event == "open":
            path, _, flags = args
            if not isinstance(flags, int) or not flags & WRITING:
                return ""
        elif event in CHANGING:
            path = args[0]
        else:
            return ""
        try:
            text = os.fsdecode(path)
        except TypeError:
            return ""
        counts = text.startswith(self.room) and not text.endswith(NOT_COUNTED)
        return text if counts else ""

    def happened(self, path: str) -> None:
        """What the hook does then."""


def at_event(n: int, sent: int = signal.SIGKILL) -> Fault:
    """The signal `sent` just before the n-th event, counted from 1."""

    class Killing(Events):
        def happened(self, path: str) -> None:
            if self.n == n:
                os.kill(os.getpid(), sent)

    return lambda room: sys.addaudithook(Killing(room))


def full_disk(where: str) -> Fault:
    """No room for new files whose path holds `where`."""

    class Full(Events):
        def happened(self, path: str) -> None:
            if where in path and self.opened:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        def __call__(self, event: str, args: tuple[Any, ...]) -> None:
            self.opened = event in ("open", "os.mkdir")
            super().__call__(event, args)

    return lambda room: sys.addaudithook(Full(room))


def out_of_memory(
    target: Any, name: str, calls: int, error: Callable[[], BaseException], times: int = 1
) -> Fault:
    """`target.name` raises `error` at its call number `calls`, counted from 1, and `times` - 1 calls on."""

    def install(room: Path) -> None:
        original, count = getattr(target, name), 0

        def patched(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if calls <= count < calls + times:
                raise error()
            return original(*args, **kwargs)

        setattr(target, name, patched)

    return install
