"""Heavy work of the studio: one thread does one task after the other, and pages ask how far it is."""

from __future__ import annotations

import itertools
import queue
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

from ..core.types import Json

__all__ = ["Stopped", "Task", "Worker"]

KEPT = 64  # tasks that are over and can still be asked for

State = Literal["waiting", "running", "done", "failed", "stopped"]


class Stopped(Exception):
    """Somebody stopped the task."""


class Task:
    """A piece of work: what it is, how far, and in the end its result or why there is none."""

    def __init__(self, number: int, what: str, work: Callable[[Task], Any]) -> None:
        self.id, self.what, self.work = number, what, work
        self.state: State = "waiting"
        self.share, self.message = 0.0, ""
        self.result: Any = None
        self.error = ""
        self.over = threading.Event()
        self._stop = threading.Event()

    def progress(self, share: float, message: str = "") -> None:
        """Says how far the work is, from 0 to 1. Raises Stopped once the task is to stop."""
        self.share, self.message = min(max(share, 0.0), 1.0), message or self.message
        if self._stop.is_set():
            raise Stopped

    def stop(self) -> None:
        """Asks the work to stop; it does at its next `progress`, and at once where it has not begun."""
        self._stop.set()

    def to_json(self) -> Json:
        """What a page is told of it; the result is for the part that began it."""
        return {
            "id": self.id,
            "what": self.what,
            "state": self.state,
            "progress": round(self.share, 4),
            "message": self.message,
            "error": self.error,
        }


class Worker:
    """One thread that does tasks in their order."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._tasks: OrderedDict[int, Task] = OrderedDict()
        self._keys: dict[str, Task] = {}
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, what: str, work: Callable[[Task], Any], key: str = "") -> Task:
        """The task of this work, which waits until those before it are over.

        Of one `key` there is one task at a time: while it is not over, it is returned in place of another.
        """
        with self._lock:
            if key and (same := self._keys.get(key)) and not same.over.is_set():
                return same
            task = Task(next(self._numbers), what, work)
            self._tasks[task.id] = task
            if key:
                self._keys[key] = task
            self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="studio worker", daemon=True)
                self._thread.start()
        self._waiting.put(task)
        return task

    def task(self, number: int) -> Task:
        """A task by its number; KeyError where there is none, or none any more."""
        return self._tasks[number]

    def tasks(self) -> list[Task]:
        """All tasks that are remembered, the oldest first."""
        with self._lock:
            return list(self._tasks.values())

    def _forget(self) -> None:
        over = [number for number, task in self._tasks.items() if task.over.is_set()]
        for number in over[: max(0, len(over) - KEPT)]:
            del self._tasks[number]
        self._keys = {key: task for key, task in self._keys.items() if task.id in self._tasks}

    def _run(self) -> None:
        while True:
            task = self._waiting.get()
            try:
                task.progress(0.0)
                task.state = "running"
                task.result = task.work(task)
                task.share, task.state = 1.0, "done"
            except Stopped:
                task.state = "stopped"
            except (ValueError, RuntimeError, ArithmeticError, OSError) as error:
                task.error, task.state = str(error), "failed"
            except Exception:  # a fault of ours: the thread must live on
                traceback.print_exc()
                task.error, task.state = "This failed; the terminal of the studio says how.", "failed"
            finally:
                del task.work  # with all that it holds
                task.over.set()
