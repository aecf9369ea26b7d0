"""Bodies of requests, in memory and within limits: nothing of them is ever written to disk.

A body is read to its end before anything is made of it, so a slow client holds no more than its connection
and the bytes that it has sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from .limits import Limits

__all__ = ["Bodies", "stated_length"]

LEFT = 499  # the status, in metrics alone, of a client that went before it had an answer


@dataclass(eq=False)
class _Body:
    """A body that is held: the bytes of it that have come, and how its reading can be ended."""

    scope: anyio.CancelScope
    held: int = 0
    evicted: bool = False


@dataclass(kw_only=True)
class Bodies:
    """Reads bodies, and knows how many bytes of them are held in all."""

    limits: Limits
    held: int = field(default=0, init=False)
    _reading: dict[_Body, None] = field(default_factory=dict, init=False)  # the oldest first

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body, which counts as held as long as the block lasts.

        Raises HTTPException where it is too long, of no stated length, too slow, or where there is no room.
        """
        self._check_length(request)
        body = _Body(anyio.CancelScope(deadline=anyio.current_time() + self.limits.read_timeout))
        self._reading[body] = None
        try:
            content = await self._read(request, body)
            self._reading.pop(body, None)
            yield content
        finally:
            self._reading.pop(body, None)
            self._release(body)

    async def _read(self, request: Request, body: _Body) -> bytes:
        chunks: list[bytes] = []
        with body.scope:
            try:
                async for chunk in request.stream():
                    self._take(body, len(chunk))
                    chunks.append(chunk)
            except ClientDisconnect as error:
                raise HTTPException(LEFT, "The client has left.") from error
            return b"".join(chunks)
        if body.evicted:
            raise _no_room()
        reason = f"The body did not come within {self.limits.read_timeout:g} seconds."
        raise HTTPException(408, reason, {"Connection": "close"})

    def _check_length(self, request: Request) -> None:
        length = stated_length(request)
        if length is None:
            raise HTTPException(411, "The request must state its Content-Length.")
        if length > self.limits.body_bytes:
            raise HTTPException(413, f"A body has at most {self.limits.max_megabytes:g} million bytes.")

    def _take(self, body: _Body, n: int) -> None:
        """Counts n more bytes of a body; where they are too many, the oldest reading ends."""
        while self.held + n > self.limits.max_held * 1e6 and self._reading:
            oldest = next(iter(self._reading))
            del self._reading[oldest]
            oldest.evicted = True
            oldest.scope.cancel()
            self._release(oldest)
        if body.evicted or self.held + n > self.limits.max_held * 1e6:
            raise _no_room()
        body.held += n
        self.held += n

    def _release(self, body: _Body) -> None:
        self.held -= body.held
        body.held = 0


def stated_length(request: Request) -> int | None:
    """How many bytes a request says that its body has; None where it does not say."""
    text = request.headers.get("content-length", "")
    return int(text[:20]) if text.isascii() and text.isdigit() else None


def _no_room() -> HTTPException:
    headers = {"Retry-After": "1", "Connection": "close"}
    return HTTPException(503, "The server holds too many bodies. Send this one again.", headers)
