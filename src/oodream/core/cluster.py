"""Work on a cluster of Ray: tasks go to workers that hold what the work needs, and results come back as they
are done. A worker or a machine that is lost costs what it was at, and another does that again.

What the work is, is not known here. Whoever asks for it keeps what is finished, so that it is not asked for
again.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Generic, TypeVar

from .errors import StoreError
from .options import ConfigError
from .packages import missing

__all__ = ["Cluster", "Work"]

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[], Callable[[T], R]]
"""Called once by every worker, it loads what the work needs, and returns what does a task. It is pickled."""

AHEAD = 2  # tasks that a worker has at once, so that it never waits for the next one
LOST = 5  # workers in turn that are lost with the same task, or before any: then something is wrong


class Cluster:
    """The cluster of Ray that the variable RAY_ADDRESS names, or that this machine belongs to, or else this
    machine: with one worker for every GPU, or for every processor core where there is no GPU or `device` is
    "cpu".

    Machines may come and go. Raises ConfigError where Ray is not installed, StoreError where it cannot be
    reached.
    """

    def __init__(self, device: str = "auto") -> None:
        self.ray = _connected()
        self.resource = "GPU" if device != "cpu" and self._has("GPU") else "CPU"
        self._workers: dict[Any, _State] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._workers:
            self.ray.kill(actor)

    def map(self, work: Work[T, R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Every task with its result, in the order in which they are done; tasks are taken as they are
        needed.

        An error in the work is raised here, as it was raised there. Raises StoreError for a task with which
        worker after worker is lost, and for workers of another version of this program.
        """
        yield from _Map(self, work, iter(tasks)).results()

    def _has(self, resource: str) -> int:
        return int(self.ray.cluster_resources().get(resource, 0))

    def _hire(self) -> None:
        """Asks for a worker for every place there is; one that has no place waits for it."""
        kind = {"num_gpus": 1} if self.resource == "GPU" else {"num_cpus": 1}
        while len(self._workers) < max(1, self._has(self.resource)):
            self._workers[self.ray.remote(_Worker).options(**kind).remote()] = _State()


@dataclass
class _State:
    """What a worker is at: the work that it has been given, whether it has loaded it, and how many tasks it
    has.
    """

    work: Any = None
    ready: bool = False
    tasks: int = 0


@dataclass
class _Map(Generic[T, R]):
    """The work of one `Cluster.map`."""

    cluster: Cluster
    work: Work[T, R]
    tasks: Iterator[T]
    again: deque[T] = field(default_factory=deque)
    under_way: dict[Any, tuple[Any, T | None]] = field(default_factory=dict)
    losses: Counter[int] = field(default_factory=Counter)

    def results(self) -> Iterator[tuple[T, R]]:
        ray, workers = self.cluster.ray, self.cluster._workers
        lost = tuple(getattr(ray.exceptions, name) for name in LOSSES)
        work = ray.put(self.work)
        while self._hand_out(work):
            (reference,), _ = ray.wait(list(self.under_way), num_returns=1)
            actor, task = self.under_way.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause or error from error
            except lost as error:
                self._lose(actor, task, error)
                continue
            if task is None:
                workers[actor].ready = True
                self.losses.pop(id(None), None)
            else:
                workers[actor].tasks -= 1
                self.losses.pop(id(task), None)
                yield task, result

    def _hand_out(self, work: Any) -> bool:
        """Gives the workers what they have room for; False where nothing is left to be done."""
        self.cluster._hire()
        for actor, state in self.cluster._workers.items():
            if state.work is not work:
                state.work, state.ready, state.tasks = work, False, 0
                self.under_way[actor.load.remote(work, _version())] = actor, None
            while state.ready and state.tasks < AHEAD and (task := self._next()) is not None:
                self.under_way[actor.do.remote(task)] = actor, task
                state.tasks += 1
        if any(task is not None for _, task in self.under_way.values()) or self.again:
            return True
        if (task := self._next()) is None:
            return False
        self.again.append(task)  # no worker is ready yet
        return True

    def _next(self) -> T | None:
        return self.again.popleft() if self.again else next(self.tasks, None)

    def _lose(self, actor: Any, task: T | None, error: Exception) -> None:
        """A worker is gone: what it was at goes to another."""
        self.cluster._workers.pop(actor, None)
        if task is not None:
            self.again.append(task)
        self.losses[id(task)] += 1
        if self.losses[id(task)] >= LOST:
            what = "while they loaded" if task is None else "with the same task"
            raise StoreError(
                f"{LOST} workers in turn were lost {what}, often for want of memory; what is finished is "
                f"kept. Ray says: {error}"
            ) from error


LOSSES = ("RayActorError", "ObjectLostError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
"""Ray's names for a worker or a machine that is gone, or a result that went with it."""


class _Worker:
    """What Ray runs as an actor, in a process of its own."""

    def load(self, work: Work[Any, Any], version: str) -> None:
        if version != _version():
            raise StoreError(
                f"A worker of the cluster has oodream {_version()}, and this is {version}. "
                "Install the same on all machines."
            )
        self.work = work()

    def do(self, task: Any) -> Any:
        return self.work(task)


def _version() -> str:
    from .. import __version__

    return __version__


def _connected() -> ModuleType:
    """Ray, joined to its cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray reports to its makers
    try:
        import ray
    except ImportError as error:
        raise ConfigError(missing("The engine ray", "ray", "ray")) from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError) as error:
            place = os.environ.get("RAY_ADDRESS", "this machine")
            raise StoreError(f"The cluster of Ray at {place} cannot be reached: {error}") from error
    module: ModuleType = ray
    return module
