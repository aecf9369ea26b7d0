"""Commands of the program in forked children, to which faults happen: a kill or Ctrl-C at a moment, a full
disk, memory that gives out, another clock, renames that are seen late.

A fork has all imports behind it, so that a whole tiny run takes seconds. Moments are counted in events: what
changes a file below `room`, just before it does so (audit events of Python).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from oodream.cli.main import main

__all__ = [
    "MEMORY",
    "STEP",
    "UNET",
    "Ended",
    "Fault",
    "at_cpu",
    "at_event",
    "cpu_seconds",
    "failing",
    "full_disk",
    "killed",
    "little_memory",
    "preload",
    "run",
    "run_together",
    "set_to",
    "slow_renames",
]

CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "shutil.copyfile"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LIMIT = 600.0  # seconds that a child may take
LIBRARIES = ("oodream.", "scipy.", "sklearn.", "transformers.", "diffusers.", "torch.", "PIL.", "jinja2")
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


def run(args: list[str], room: Path, *faults: Fault) -> Ended:
    """Runs `oodream` with these arguments in a fork, with faults. `room` is the folder whose files count."""
    return run_together([args], room, *faults)[0]


def run_together(several: Sequence[list[str]], room: Path, *faults: Fault) -> list[Ended]:
    """Several commands that begin at once, and run side by side."""
    children = [Child(args, room, faults, f"-{i}" if i else "") for i, args in enumerate(several)]
    while not all(child.over for child in children):
        time.sleep(0.02)
    return [child.ended for child in children]


def said_of(room: Path, which: str = "") -> Path:
    """The folder of what children over a room print."""
    return room.with_name(f".said-{room.name}{which}")


class Child:
    """A command in a fork, from its beginning."""

    def __init__(self, args: list[str], room: Path, faults: Sequence[Fault], which: str = "") -> None:
        self.said = said_of(room, which)
        self.said.mkdir(parents=True, exist_ok=True)
        self.status: int | None = None
        self.began = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(args, room, self.said, faults)

    @property
    def over(self) -> bool:
        """Whether it has ended; one that takes too long is killed."""
        if self.status is None:
            done, status, usage = os.wait4(self.pid, os.WNOHANG)
            if done:
                self.status, self.usage, self.seconds = status, usage, time.monotonic() - self.began
            elif time.monotonic() - self.began > LIMIT:
                os.kill(self.pid, signal.SIGKILL)
        return self.status is not None

    @property
    def ended(self) -> Ended:
        assert self.status is not None
        counted = self.said / "events"
        return Ended(
            code=os.waitstatus_to_exitcode(self.status),
            out=(self.said / "out").read_text(errors="replace"),
            err=(self.said / "err").read_text(errors="replace"),
            seconds=self.seconds,
            cpu=self.usage.ru_utime + self.usage.ru_stime,
            events=int(counted.read_text()) if counted.exists() else -1,
        )


def preload(room: Path) -> None:
    """Imports here what a command over this room has imported, so that those after it need not."""
    for name in (said_of(room) / "modules").read_text().splitlines():
        if name.startswith(LIBRARIES):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def cpu_seconds() -> float:
    """Seconds of processors that this process and its ended children took."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _be_child(args: list[str], room: Path, said: Path, faults: Sequence[Fault]) -> None:
    code = 70
    try:
        tqdm.set_lock(threading.RLock())  # the one that is shared, a child that is killed may hold for ever
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
        names = [name for name in list(sys.modules) if isinstance(name, str)]  # some libraries add others
        (said / "modules").write_text("\n".join(names), errors="replace")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Events:
    """Counts what changes files below a folder; as an audit hook it is called before each."""

    def __init__(self, room: Path, beside: tuple[str, ...] = NOT_COUNTED) -> None:
        self.room, self.n, self.on, self.beside = str(room), 0, True, beside

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
        counts = text.startswith(self.room) and not text.endswith(self.beside)
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


def at_cpu(seconds: float, sent: int = signal.SIGKILL) -> Fault:
    """The signal `sent` when the process has taken so many seconds of processors."""

    def watch() -> None:
        while time.process_time() < seconds:
            time.sleep(0.002)
        os.kill(os.getpid(), sent)

    return lambda room: threading.Thread(target=watch, daemon=True).start()


def full_disk(where: str) -> Fault:
    """No room for new files whose path holds `where`, but for the mark that a stage is begun."""

    class Full(Events):
        def happened(self, path: str) -> None:
            if where in path and self.opened and "begun.json" not in path:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        def __call__(self, event: str, args: tuple[Any, ...]) -> None:
            self.opened = event in ("open", "os.mkdir")
            super().__call__(event, args)

    return lambda room: sys.addaudithook(Full(room))


def failing(
    name: str, when: Callable[[int, tuple[Any, ...]], bool], error: Callable[[], BaseException]
) -> Fault:
    """The function of this name ("module:Class.method") raises `error` at those calls, counted from 1, for
    which `when`, which also gets its arguments, is true.
    """

    def install(room: Path) -> None:
        module, _, path = name.partition(":")
        target = importlib.import_module(module)
        *parts, last = path.split(".")
        for part in parts:
            target = getattr(target, part)
        original, count = getattr(target, last), 0

        def patched(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if when(count, args):
                raise error()
            return original(*args, **kwargs)

        setattr(target, last, patched)

    return install


def killed(name: str, call: int) -> Fault:
    """A kill -9 just before the call number `call` of a function."""
    return failing(name, lambda n, _: n == call, lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore


def set_to(name: str, value: Any) -> Fault:
    """Another value for a module's variable."""

    def install(room: Path) -> None:
        module, _, variable = name.partition(":")
        setattr(importlib.import_module(module), variable, value)

    return install


def little_memory(mebibytes: int) -> Fault:
    """An address space that may grow by so much."""

    def install(room: Path) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return install


def slow_renames(seconds: float) -> Fault:
    """A network file system: each rename takes `seconds`, and what another process has written is not to be
    seen for so long.
    """

    def install(room: Path) -> None:
        replace, stat, listdir, own = os.replace, os.stat, os.listdir, set[str]()

        def slow(source: Any, target: Any, **kwargs: Any) -> None:
            time.sleep(seconds)
            replace(source, target, **kwargs)
            own.add(os.fspath(target))

        def hidden(path: str, seen: os.stat_result) -> bool:
            new = time.time() - seen.st_ctime < seconds
            return new and path.startswith(str(room)) and path not in own and not os.path.isdir(path)

        def late(path: Any, **kwargs: Any) -> os.stat_result:
            seen = stat(path, **kwargs)
            if isinstance(path, (str, Path)) and hidden(str(path), seen):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return seen

        def listed(path: Any = ".") -> list[Any]:
            names = listdir(path)
            if not isinstance(path, (str, Path)) or not str(path).startswith(str(room)):
                return names
            return [
                name
                for name in names
                if not hidden(f"{path}/{name}", stat(f"{path}/{name}", follow_symlinks=False))
            ]

        class Mine(Events):
            def happened(self, path: str) -> None:
                own.add(path)

        sys.addaudithook(Mine(room, (".pyc",)))
        os.replace, os.stat, os.listdir = slow, late, listed  # type: ignore[assignment]

    return install


def cuda_error() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


UNET = "diffusers:UNet2DConditionModel.forward"
STEP = "torch.optim:SGD.step"
NETWORK = "oodream.models.resnet:ResNet.forward"
MEMORY: list[tuple[str, Fault, str, int]] = [
    ("drawing, a tile once", failing(UNET, lambda n, _: n == 5, cuda_error), "drawn together", 0),
    ("drawing, always", failing(UNET, lambda n, _: n > 9, cuda_error), "Use a smaller decoder", 2),
    ("training", failing(STEP, lambda n, _: n == 14, MemoryError), "Lower the batch", 2),
    ("evaluation, above 8 images",
     failing(NETWORK, lambda _, a: not a[0].training and len(a[1]) > 8, cuda_error), "computed together", 0),
    ("evaluation, always", failing(NETWORK, lambda n, a: not a[0].training and n > 40, MemoryError),
     "Use a smaller network", 2),
]  # fmt: skip
"""where memory gives out, how, what the command must say, and its exit code"""
