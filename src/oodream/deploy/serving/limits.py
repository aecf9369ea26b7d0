"""What a server takes from its clients, and how long it waits for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ...core.options import ConfigError, Range, Section

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits(Section):
    """What is taken from clients. What is beyond it is refused, and the reason said."""

    max_megabytes: Annotated[float, Range(0, 1024, open="low")] = 32.0
    """size of one request's body, in millions of bytes"""
    max_held: Annotated[float, Range(0, open="low")] = 256.0
    """size of all bodies that are held at once, in millions of bytes; where they would take more, the request
    that has been sending for the longest is refused"""
    max_client_requests: Annotated[int, Range(1)] = 64
    """requests that one client may have under way; a client is an address of another machine, of IPv6 its
    network of 64 bits"""
    max_client_held: Annotated[float, Range(0, open="low")] = 128.0
    """size of all bodies that one client may have under way, in millions of bytes"""
    max_pictures: Annotated[int, Range(1, 4096)] = 64
    """pictures in one request"""
    max_megapixels: Annotated[float, Range(0, 178, open="low")] = 25.0
    """size of one picture, in millions of pixels"""
    max_waiting: Annotated[int, Range(1)] = 1024
    """pictures that wait for the network; where there would be more, the request with the most is refused"""
    max_connections: Annotated[int, Range(1)] = 200
    """open connections; where there would be more, of the client that has the most the one that has been
    sending, or idle, for the longest is closed"""
    read_timeout: Annotated[float, Range(0, open="low")] = 30.0
    """seconds for a request to arrive: so many for its head, then as many for its body"""
    answer_timeout: Annotated[float, Range(0, open="low")] = 30.0
    """seconds to read a request's pictures, then as many until the network has answered them"""
    batch: Annotated[int, Range(1)] = 32
    """pictures that go through the network at once, of one request or of several"""
    batch_delay: Annotated[float, Range(0, 1)] = 0.002
    """seconds that a picture may wait for others to share its pass"""
    linger: Annotated[float, Range(0)] = 1.0
    """seconds, when it is told to stop, in which requests are still taken, /health says that it stops, and
    every answer closes its connection"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_held", "max_client_held"):
            if getattr(self, name) < self.max_megabytes:
                raise ConfigError(
                    f"{name} ({getattr(self, name):g}) must be at least max_megabytes "
                    f"({self.max_megabytes:g})."
                )

    @property
    def body_bytes(self) -> int:
        return int(self.max_megabytes * 1e6)

    @property
    def pixels(self) -> int:
        return int(self.max_megapixels * 1e6)
