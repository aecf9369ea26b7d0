"""The server itself: uvicorn on a socket, with deadlines for connections, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ...core.errors import StoreError
from .clients import client_of
from .limits import Limits

__all__ = ["bind", "is_loopback", "serve"]

BACKLOG = 512
HEAD_BYTES = 16_384


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a server on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises StoreError where that cannot be."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:  # the latter for a port that there cannot be
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise StoreError(
            f"Nothing can be served on {host}, port {port}: {reason}. Choose another."
        ) from error


def serve(
    app: FastAPI,
    listening: socket.socket,
    started: Callable[[], None] = lambda: None,
    proxies: Sequence[str] = (),
) -> None:
    """Serves an application of `create_app` until SIGTERM or SIGINT, and then finishes what is under way.

    `started` is called when requests are taken. `proxies` are addresses whose X-Forwarded-For is believed.
    """
    limits = app.state.service.limits
    config = uvicorn.Config(
        app,
        http=cast(Any, functools.partial(_Connection, limits=limits)),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(limits.read_timeout + 2 * limits.answer_timeout) + 1,
    )
    server = _Server(config, started)
    # Signals may come before uvicorn looks out for them, and it raises them once more when it has stopped.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """A server that, when it is to stop, first sees its clients off."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        service = cast(FastAPI, self.config.app).state.service
        service.stopping = True
        ends = time.monotonic() + service.limits.linger
        while time.monotonic() < ends and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """A connection whose next request must come in time, and which gives way where there are too many."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limits = limits
        self.conn = _Stated(h11.SERVER, HEAD_BYTES)
        self._since, self._owner = self.loop.time(), ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Else an answer's body waits until the client has acknowledged its head, which may take 40 ms.
        # asyncio sees to it for sockets that state their protocol; those of `create_server` do not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()
        host = self.client[0] if self.client else ""
        self._owner = client_of(host) or host
        while len(self.connections) > self.limits.max_connections:
            connections = [c for c in self.connections if isinstance(c, _Connection)]
            count = Counter(connection._owner for connection in connections)
            waiting = [connection for connection in connections if connection.waits]
            if not waiting:
                self.transport.abort()
                return
            given_up = min(waiting, key=lambda connection: (-count[connection._owner], connection._since))
            self.connections.discard(given_up)
            given_up.transport.abort()

    @property
    def idle(self) -> bool:
        """Whether there is no request, or only some of its head."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """Whether the client has still to send something."""
        return self.idle or self.cycle.more_body

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.limits.read_timeout, self._give_up)

    def _give_up(self) -> None:
        if self.idle:
            self.transport.abort()


class _Stated(h11.Connection):
    """A connection that does not parse bodies without a stated length.

    They are refused, and a body of many tiny chunks would hold up everybody while it is parsed.
    """

    _paused = False

    def next_event(self) -> Any:
        if self._paused:
            return h11.PAUSED
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._paused = any(name == b"transfer-encoding" for name, _ in event.headers)
        return event
