"""What happens around every request: it is counted, and its connection is left in order."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from .service import Service

__all__ = ["PATHS", "Watch"]

PATHS = ("/predict", "/health", "/metrics", "/openapi.json")
CLOSE = (b"connection", b"close")
DRAIN_SECONDS = 1.0  # in which the rest of a refused body is read and dropped, so the client sees why


class Watch:
    """Middleware that counts requests, and closes the connections of those that were not read to their end
    and of all when the server stops.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics, began, status = self.service.metrics, time.perf_counter(), 500
        path = scope["path"] if scope["path"] in PATHS else "other"
        body = _Unread(scope, receive)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
                if CLOSE not in headers:
                    await body.drain()
                    if body.unread or self.service.stopping:
                        message["headers"] = [*headers, CLOSE]
            await send(message)

        metrics.under_way.inc()
        try:
            await self.app(scope, body.receive, answer)
        finally:
            metrics.under_way.dec()
            metrics.requests.labels(path, status).inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - began)


class _Unread:
    """A request's body: whether some of it has not been read yet."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = dict(scope["headers"])
        self.unread = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        # A client that waits for leave to send needs none to read an answer.
        self._comes = b"content-length" in headers and b"expect" not in headers
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.unread = False
        return message

    async def drain(self) -> None:
        """Reads the rest and drops it, where it comes soon."""
        if self._comes:
            with anyio.move_on_after(DRAIN_SECONDS):
                while self.unread:
                    await self.receive()
