"""What each client may have under way at once, so that one cannot keep the others out."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .bodies import stated_length
from .limits import Limits

__all__ = ["Clients", "client_of"]

PREFIX = 64  # bits of an IPv6 address that one client has


def client_of(address: str) -> str:
    """Whom an address belongs to: itself, of IPv6 its network of 64 bits; empty for one of this machine.

    Programs of this machine share its addresses, so these tell no client from another.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return ""
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, PREFIX), strict=False))


@dataclass(kw_only=True)
class Clients:
    """Counts the requests of each client that are under way, and the bytes that they say they have."""

    limits: Limits
    _requests: Counter[str] = field(default_factory=Counter, init=False)
    _bytes: Counter[str] = field(default_factory=Counter, init=False)

    @contextmanager
    def admitted(self, request: Request) -> Iterator[None]:
        """The request is under way as long as the block lasts.

        Raises HTTPException where its client has too many, or too large ones.
        """
        client = client_of(request.client.host if request.client else "")
        if not client:
            yield
            return
        # A longer body is not read, nor is one of no stated length.
        length = min(stated_length(request) or 0, self.limits.body_bytes)
        self._check(client, length)
        self._requests[client] += 1
        self._bytes[client] += length
        try:
            yield
        finally:
            self._requests[client] -= 1
            self._bytes[client] -= length
            if not self._requests[client]:
                del self._requests[client], self._bytes[client]

    def _check(self, client: str, length: int) -> None:
        most, limit = self.limits.max_client_requests, self.limits.max_client_held
        if self._requests[client] >= most:
            raise _refusal(f"A client may have {most} requests under way.")
        if self._bytes[client] + length > limit * 1e6:
            raise _refusal(f"A client's requests under way may have {limit:g} million bytes.")


def _refusal(reason: str) -> HTTPException:
    return HTTPException(429, f"{reason} Wait for their answers.", {"Retry-After": "1"})
