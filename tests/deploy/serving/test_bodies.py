"""Bodies are bounded together, and where there is no room the slowest goes."""

from __future__ import annotations

import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from oodream.deploy.serving.bodies import Bodies
from oodream.deploy.serving.limits import Limits

MB = 1_000_000


def request(*chunks: bytes | float | None, length: int | None = None) -> Request:
    """A request whose body comes in these chunks and pauses; None is a client that goes."""
    size = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes)) if length is None else length
    rest = list(chunks)

    async def receive() -> dict:
        while rest and isinstance(rest[0], float):
            await asyncio.sleep(rest.pop(0))
        if rest and rest[0] is None:
            return {"type": "http.disconnect"}
        chunk = rest.pop(0) if rest else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(rest)}

    headers = [(b"content-length", str(size).encode())] if size >= 0 else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def length(bodies: Bodies, asked: Request, stays: float = 0.0) -> int:
    """A body's length, or the status of its refusal; it is held for some seconds."""
    try:
        async with bodies.read(asked) as body:
            await asyncio.sleep(stays)
            return len(body)
    except HTTPException as error:
        return error.status_code


def lengths(*asked: Request, stays: float = 0.0, **limits: float) -> list[int]:
    """What `length` says of requests that come a little after one another; at the end nothing is held."""

    async def main() -> list[int]:
        bodies, tasks = Bodies(limits=Limits(**limits)), []
        for one in asked:
            tasks.append(asyncio.create_task(length(bodies, one, stays)))
            await asyncio.sleep(0.02)
        found = await asyncio.gather(*tasks)
        assert bodies.held == 0
        return found

    return asyncio.run(main())


def test_bodies_are_read():
    assert lengths(request(b"abc", b"de"), request(b"")) == [5, 0]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request(length=2 * MB), 413),
        (request(length=10**30), 413),
        (request(length=-1), 411),
        (request(b"a", 0.5, b"b"), 408),
        (request(b"a", None), 499),
    ],
)
def test_what_is_refused(asked, status):
    assert lengths(asked, max_megabytes=1, read_timeout=0.2) == [status]


def test_where_there_is_no_room_the_body_that_came_first_and_is_still_coming_goes():
    slow, other, quick = request(bytes(MB), 5.0, b"x"), request(bytes(MB), 5.0, b"x"), request(bytes(MB))
    assert lengths(slow, other, quick, max_megabytes=2, max_held=2.5, read_timeout=0.3) == [503, 408, MB]


def test_where_all_the_room_is_in_use_newcomers_are_refused():
    """Bodies that are whole are not given up for others."""
    asked = [request(bytes(MB)) for _ in range(3)]
    assert lengths(*asked, stays=0.3, max_megabytes=2, max_held=2.5) == [MB, MB, 503]
