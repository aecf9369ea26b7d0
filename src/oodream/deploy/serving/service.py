"""A guard with what a server keeps beside it, and the way of a request from its body to its answer."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Protocol

import anyio
import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ...runtime.pictures import read_square
from .batching import Batcher, Overloaded
from .bodies import Bodies
from .clients import Clients
from .limits import Limits
from .metrics import Drift, Metrics
from .pictures import Reader
from .schema import Answer, Answers

__all__ = ["How", "Servable", "Service"]


class Servable(Protocol):
    """What can be served: a guard, `deploy.guard.Guard` or `runtime.Guard`."""

    @property
    def size(self) -> int: ...

    @property
    def white(self) -> float: ...

    @property
    def guarantee(self) -> object: ...

    def predict(self, pictures: Any) -> Any: ...

    def predict_set(self, pictures: Any, alpha: float) -> Any: ...

    def at(self, alpha: float) -> Servable: ...

    def drift(self) -> Drift: ...


@dataclass(frozen=True)
class How:
    """How pictures are to be answered: at the rate `alpha` (None: the guard's own), and with sets that miss
    the true class at the rate `candidates` (None: without).
    """

    alpha: float | None
    candidates: float | None


AS_IT_IS = How(None, None)


class Service:
    """Answers requests. `stopping` says that no more are to come."""

    def __init__(self, guard: Servable, limits: Limits) -> None:
        self.guard, self.limits, self.stopping = guard, limits, False
        self.metrics = Metrics(guard.drift())
        self.batcher: Batcher[How, Any] = Batcher(predict=self._pass, limits=limits)
        self._bodies, self._clients = Bodies(limits=limits), Clients(limits=limits)
        self._reader = Reader(read=self._square, limits=limits, places=os.cpu_count() or 1)
        self._at = functools.lru_cache(maxsize=64)(guard.at)

    async def answer(self, request: Request, how: How) -> Answers:
        """The answers to a request's pictures; HTTPException, which says why, where it is refused."""
        with self._clients.admitted(request):
            return await self._answer(request, how)

    async def _answer(self, request: Request, how: How) -> Answers:
        try:
            guard = self.guard if how == AS_IT_IS else await anyio.to_thread.run_sync(self._checked, how)
            async with self._bodies.read(request) as body:
                with anyio.fail_after(self.limits.answer_timeout):
                    names, squares_B = await self._reader.squares(
                        body, request.headers.get("content-type", "")
                    )
            with anyio.fail_after(self.limits.answer_timeout):
                predictions = await self.batcher.answers(squares_B, how)
        except TimeoutError as error:
            raise _busy(f"There was no answer within {self.limits.answer_timeout:g} seconds.") from error
        except Overloaded as error:
            raise _busy("Too many pictures wait for an answer.") from error
        answers = [
            Answer(file=name or None, **asdict(one)) for name, one in zip(names, predictions, strict=True)
        ]
        return Answers(predictions=answers, guarantee=str(guard.guarantee))

    def try_out(self) -> None:
        """Answers a black picture, which nobody sees: what fails or takes its time fails now."""
        self.guard.predict(np.zeros((1, self.guard.size, self.guard.size, 3), np.uint8))

    def _square(self, content: bytes) -> NDArray[np.uint8]:
        """A picture as the guard reads it, (S, S, 3)."""
        return read_square(BytesIO(content), self.guard.size, self.guard.white)

    def _guard(self, how: How) -> Servable:
        return self.guard if how.alpha is None else self._at(how.alpha)

    def _checked(self, how: How) -> Servable:
        """The guard at the rate that is asked for; HTTPException where it or the sets cannot be had."""
        try:
            guard = self._guard(how)
            if how.candidates is not None:
                guard.predict_set([], how.candidates)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return guard

    def _pass(self, squares_B: NDArray[np.uint8], how: How) -> Sequence[Any]:
        """Predictions for squares (B, S, S, 3), which are counted."""
        began, guard = time.perf_counter(), self._guard(how)
        if how.candidates is None:
            predictions = guard.predict(squares_B)
        else:
            predictions = guard.predict_set(squares_B, how.candidates)
        scores, flagged = [one.score for one in predictions], sum(one.flagged for one in predictions)
        self.metrics.add(scores, flagged, time.perf_counter() - began)
        return predictions


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"{reason} Try again.", {"Retry-After": "1"})
