"""Stages side by side on a processor: those that wait for nothing are done by a second process meanwhile.

Two trainings at once take each one half of the cores, which serve two small networks far better than one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

from ..config import Config
from ..core import memory, parallel, progress
from ..core.distributed import current_shard
from ..core.memory import Watch
from ..core.types import Json
from .job import Job
from .stage import Stage

__all__ = ["Lanes", "Second", "cores_shared", "has_room"]

PATIENCE = 5.0  # seconds in which a process that has nothing to do ends by itself
Done = tuple[Json, int]
"""A stage's summary, and the most memory that the process had meanwhile, in bytes."""


@contextmanager
def cores_shared(device: torch.device) -> Iterator[None]:
    """Within the block this process computes on half of the cores, as each of two would, so that results do
    not depend on who does what; on all of them where GPUs or several processes do the work.
    """
    alone = device.type != "cpu" or current_shard().count > 1
    with parallel.threads(torch.get_num_threads() if alone else max(1, parallel.CORES // 2)):
        yield


def has_room(device: torch.device) -> bool:
    """Whether cores and memory are there for a second process, which takes what this one has; and whether
    this is the program itself or a notebook: a script of someone's would be run again by that process, which
    imports the main module.
    """
    main = sys.modules["__main__"]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    harmless = spec.name.endswith(".__main__") if spec else file is None or Path(file).stem == "oodream"
    size = psutil.Process().memory_info().rss
    return (
        harmless
        and device.type == "cpu"
        and current_shard().count == 1
        and parallel.CORES > 1
        and memory.free(device) > 2 * size
    )


class Lanes:
    """Stages, in order, that two take from: each the first one whose forerunners are all done.

    The second one takes stages that are `beside`, and while the first one is at a stage that uses all cores
    only those that use one. The first one leaves them to it while it has others. Stages that use one core go
    before those that use all, which are as fast by whoever does them.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._waiting, self._done = list(stages), set[str]()
        self._names = {stage.name for stage in stages}
        self._changed, self._errors = threading.Condition(), list[BaseException]()
        self._narrow = True  # is what the first one is at

    def take(self, second: bool) -> Stage | None:
        """The next stage, when there is one. None for the second one where none is left that it may take, and
        for the first one when all are done, those of the second one, too.

        Raises what a stage of the other one's has raised.
        """
        with self._changed:
            while True:
                for error in self._errors:
                    raise error
                left = any(s.beside for s in self._waiting) if second else self._done != self._names
                if not left:
                    return None
                ready = [s for s in self._waiting if self._done >= {*s.after} & self._names]
                if second:
                    ready = [s for s in ready if s.beside and (s.narrow or self._narrow)]
                if ready:
                    break
                self._changed.wait(1)
            stage = min(ready, key=lambda s: (s.beside and not second, not s.narrow))
            self._waiting.remove(stage)
            if not second:
                self._narrow = stage.narrow
                self._changed.notify_all()
            return stage

    def finished(self, stage: Stage) -> None:
        """Lets those go on that wait for it."""
        with self._changed:
            self._done.add(stage.name)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Ends the other one's work before its next stage."""
        with self._changed:
            self._errors.append(error)
            self._changed.notify_all()


class Second:
    """The second process of a job. It is started when it is first given a stage, and ends with this one."""

    def __init__(self, job: Job) -> None:
        self._job, self._context = job, get_context("spawn")
        self._process: Any = None

    def __enter__(self) -> Second:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._process is not None:
            if error is None:  # it has nothing to do, and ends by itself
                self._here.close()
                self._process.join(PATIENCE)
            self._process.kill()
            self._process.join()

    def do(self, stage: Stage) -> Done:
        """Has a stage's work done. Raises what it raises there."""
        if self._process is None:
            self._here, there = self._context.Pipe()
            job = self._job
            arguments = there, job.config, job.folder.path, job.command, torch.get_num_threads()
            self._process = self._context.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
            there.close()
        self._here.send(stage.work)
        try:
            outcome, warned = self._here.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(
                f"The second process, which did {stage.name}, was killed, often for want of memory. What is "
                "finished is kept. With OMP_NUM_THREADS=1 the same command does without one."
            ) from error
        for text in warned:
            warnings.warn(text, stacklevel=2)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _serve(connection: Connection, config: Config, folder: Path, command: str, threads: int) -> None:
    """Does the work that comes through the connection, in the second process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted, too, and ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parallel.use_cores(max(1, parallel.CORES - threads))  # the first process has the others
    torch.set_num_threads(threads)
    progress.hide()
    job = Job(config, folder, command)
    while True:
        try:
            work: Callable[[Job], Json] = connection.recv()
        except EOFError:
            return
        with warnings.catch_warnings(record=True) as warned:
            try:
                with Watch(job.device) as watch:
                    summary = work(job)
                outcome: Done | BaseException = (summary, watch.most)
            except Exception as error:
                outcome = _sendable(error)
        connection.send((outcome, [str(warning.message) for warning in warned]))


def _end_with_parent() -> None:
    """Ends this process at once where the one that started it ends, however that comes."""
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)


def _sendable(error: Exception) -> Exception:
    """The error, or one with its words where it cannot be made anew from its arguments, as it is there."""
    try:
        if str(type(error)(*error.args)) == str(error):
            return error
    except Exception:
        pass
    return RuntimeError(str(error))
