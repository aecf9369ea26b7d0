"""Turns come in an order that nobody can hold up, and no place is lost."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from oodream.deploy.serving.limits import Limits
from oodream.deploy.serving.pictures import File, Reader, Turns, files_in
from tests.helpers.serving import encoded, garment


def order(asked: list[tuple[str, float]], places: int = 1) -> list[str]:
    """The order in which pictures (name, cost) have their turns, that ask while all places are taken."""

    async def main() -> list[str]:
        turns, came = Turns(places), []

        async def take(name: str, cost: float) -> None:
            async with turns.turn(cost):
                came.append(name)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(take("first", 0)) for _ in range(places)]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(take(name, cost)) for name, cost in asked]
        await asyncio.gather(*tasks)
        return came[places:]

    return asyncio.run(main())


def test_turns_come_in_order_of_arrival_but_for_their_cost():
    assert order([("a", 1e6), ("b", 1e6), ("c", 1e6)]) == ["a", "b", "c"]
    assert order([("large", 50e6), ("small", 1e4), ("middle", 10e6)]) == ["small", "middle", "large"]


def test_requests_take_turns():
    """Three pictures of one request, which was first, and two of another."""
    assert order([("a", 10), ("a", 20), ("a", 30), ("b", 10), ("b", 20)]) == ["a", "b", "a", "b", "a"]


def test_who_comes_later_does_not_begin_before_those_who_wait():
    """A large picture has its turn when as much as it has was read, however many small ones still come."""

    async def main() -> list[str]:
        turns, came = Turns(1), []

        async def take(name: str, cost: float) -> None:
            async with turns.turn(cost):
                came.append(name)
                await asyncio.sleep(0)

        async def small(n: int) -> None:
            for _ in range(n):
                await take("small", 10)

        await asyncio.gather(take("first", 0), small(20), small(20), take("large", 55))
        return came

    assert 4 <= asyncio.run(main()).index("large") <= 12


def test_no_place_is_lost_to_those_who_gave_up():
    async def main() -> bool:
        turns = Turns(1)

        async def take() -> None:
            async with turns.turn(0):
                await asyncio.sleep(0.02)

        for when in (0.0, 0.01, 0.02, 0.03):  # while it waits, and about when its turn comes
            holder, waiter = asyncio.create_task(take()), asyncio.create_task(take())
            await asyncio.sleep(when)
            waiter.cancel()
            await asyncio.gather(holder, waiter, return_exceptions=True)
        await asyncio.wait_for(take(), 1)
        return True

    assert asyncio.run(main())


def test_small_pictures_do_not_wait_for_large_ones():
    """While large ones are read, for as long as it may take, a small one is answered."""
    go, reading = threading.Event(), []

    def read(content: bytes) -> np.ndarray:
        if len(content) > 4_000_000:
            reading.append(content)
            go.wait(10)
        return np.zeros((8, 8, 3), np.uint8)

    small, large = encoded(garment(0)), encoded(garment(1).resize((1200, 1200)), "BMP")

    async def main() -> None:
        reader = Reader(read=read, limits=Limits(), places=1)
        slow = [asyncio.create_task(reader.squares(large, "image/bmp")) for _ in range(3)]
        while not reading:
            await asyncio.sleep(0.01)
        names, squares_B = await asyncio.wait_for(reader.squares(small, "image/png"), 5)
        assert (names, squares_B.shape, len(reading)) == ([""], (1, 8, 8, 3), 1)
        go.set()
        assert all(squares_B.shape == (1, 8, 8, 3) for _, squares_B in await asyncio.gather(*slow))

    asyncio.run(main())


def test_a_reason_that_is_a_sentence_ends_once() -> None:
    def read(content: bytes) -> np.ndarray:
        raise OSError("It is a sentence.")

    reader = Reader(read=read, limits=Limits(), places=1)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(reader.squares(encoded(garment(0)), "image/png"))
    assert refused.value.detail == "Picture 0 cannot be read: It is a sentence."


@pytest.mark.parametrize("text", ["application/json", "APPLICATION/JSON; charset=utf-8"])
def test_types_are_read_as_headers_are(text):
    assert files_in(b'{"images": ["YQ=="]}', text, 1) == [File("", b"a")]
