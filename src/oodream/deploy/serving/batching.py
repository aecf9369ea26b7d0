"""Passes through the network that several requests share, with no request in another's way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .limits import Limits

__all__ = ["Batcher", "Overloaded"]

How = TypeVar("How")
A = TypeVar("A")


class Overloaded(Exception):
    """More pictures wait for the network than may, and this request has the most of them."""


@dataclass(eq=False)
class _Job(Generic[How, A]):
    """A request's squares (B, S, S, 3), how they are to be answered, and which answers there are."""

    squares_B: NDArray[np.uint8]
    how: How
    arrived: float
    done: asyncio.Future[None]
    taken: int = 0
    answers: list[A] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """How many pictures no pass has taken yet; none where the request has ended."""
        return 0 if self.done.done() else len(self.squares_B) - self.taken


@dataclass(kw_only=True)
class Batcher(Generic[How, A]):
    """Gathers pictures of all requests and has them answered by `predict`, in one thread, a pass at a time.

    `predict` takes squares (B, S, S, 3) that are to be answered in one way. A pass takes one picture of each
    request in turn until it is full, so a request of many lets the others go before.
    """

    predict: Callable[[NDArray[np.uint8], How], Sequence[A]]
    limits: Limits
    _jobs: deque[_Job[How, A]] = field(default_factory=deque, init=False)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def answers(self, squares_B: NDArray[np.uint8], how: How) -> list[A]:
        """An answer for each picture, in order.

        Raises Overloaded where too many wait, and what `predict` raises.
        """
        loop = asyncio.get_running_loop()
        job: _Job[How, A] = _Job(squares_B, how, loop.time(), loop.create_future())
        self._jobs.append(job)
        self._arrived.set()
        self._shed()
        try:
            await job.done
        finally:
            job.done.cancel()  # where the request has ended before its answer
        return job.answers

    async def run(self) -> None:
        """Serves until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "network") as thread:
            while True:
                await self._fill()
                passes: dict[How, list[tuple[_Job[How, A], int]]] = {}
                for job, i in self._taken():
                    passes.setdefault(job.how, []).append((job, i))
                for how, pictures in passes.items():
                    squares_B = np.stack([job.squares_B[i] for job, i in pictures])
                    try:
                        answers = await loop.run_in_executor(thread, self.predict, squares_B, how)
                    except Exception as error:
                        for job, _ in pictures:
                            if not job.done.done():
                                job.done.set_exception(error)
                    else:
                        _hand_out(pictures, answers)

    async def _fill(self) -> None:
        """Waits until there are pictures, and then until they fill a pass, or the first has waited enough."""
        loop, left = asyncio.get_running_loop(), None
        while True:
            waiting = [job for job in self._jobs if job.waiting]
            if waiting:
                left = min(job.arrived for job in waiting) + self.limits.batch_delay - loop.time()
                if left <= 0 or sum(job.waiting for job in waiting) >= self.limits.batch:
                    return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _taken(self) -> list[tuple[_Job[How, A], int]]:
        """The pictures of the next pass, as their requests and their places there."""
        pictures: list[tuple[_Job[How, A], int]] = []
        while self._jobs and len(pictures) < self.limits.batch:
            job = self._jobs.popleft()
            if job.waiting:
                pictures.append((job, job.taken))
                job.taken += 1
                self._jobs.append(job)
        return pictures

    def _shed(self) -> None:
        """Refuses the requests that have the most pictures waiting, where too many wait."""
        while sum(job.waiting for job in self._jobs) > self.limits.max_waiting:
            max(self._jobs, key=lambda job: job.waiting).done.set_exception(Overloaded())


def _hand_out(pictures: list[tuple[_Job[How, A], int]], answers: Sequence[A]) -> None:
    """Gives the requests their answers, which come in the pictures' order."""
    for (job, _), answer in zip(pictures, answers, strict=True):
        job.answers.append(answer)
        if not job.done.done() and len(job.answers) == len(job.squares_B):
            job.done.set_result(None)
