"""Passes are shared, in turn, and by requests of one kind alone; one request's end is not another's."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from oodream.deploy.serving.batching import Batcher, Overloaded
from oodream.deploy.serving.limits import Limits


def squares(*values: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


class Network:
    """Answers a picture with its value and the way it was asked for; the first pass waits for `go`."""

    def __init__(self) -> None:
        self.passes: list[tuple[str, list[int]]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, squares_B: np.ndarray, how: str) -> list[tuple[str, int]]:
        self.go.wait(10)
        values = squares_B[:, 0, 0, 0].tolist()
        self.passes.append((how, values))
        if 255 in values:
            raise RuntimeError("unlucky")
        return [(how, value) for value in values]


def serve(scenario, network=None, **limits):
    """What the coroutine function `scenario` returns, with a batcher that runs."""

    async def main():
        batcher = Batcher(predict=network or Network(), limits=Limits(**limits))
        running = asyncio.create_task(batcher.run())
        try:
            return await scenario(batcher)
        finally:
            running.cancel()

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_answers_come_in_the_order_of_the_pictures():
    async def scenario(batcher):
        return await batcher.answers(squares(*range(100, 120)), "as is")

    assert serve(scenario, batch=8) == [("as is", value) for value in range(100, 120)]


def test_requests_share_a_pass():
    network = Network()

    async def scenario(batcher):
        return await asyncio.gather(*(batcher.answers(squares(i), "as is") for i in range(6)))

    assert serve(scenario, network, batch_delay=0.2) == [[("as is", i)] for i in range(6)]
    assert [len(values) for _, values in network.passes] == [6]


def test_a_full_pass_waits_no_longer():
    async def scenario(batcher):
        began = time.monotonic()
        await batcher.answers(squares(1, 2), "as is")
        return time.monotonic() - began

    assert serve(scenario, batch=2, batch_delay=1.0) < 0.5


def test_a_picture_waits_for_others_no_longer_than_it_may():
    async def scenario(batcher):
        began = time.monotonic()
        await batcher.answers(squares(1), "as is")
        return time.monotonic() - began

    assert 0.3 <= serve(scenario, batch=2, batch_delay=0.3) < 0.9


def test_pictures_that_are_asked_for_otherwise_have_a_pass_of_their_own():
    network = Network()

    async def scenario(batcher):
        asked = [("a", 1), ("b", 2), ("a", 3)]
        return await asyncio.gather(*(batcher.answers(squares(value), how) for how, value in asked))

    assert serve(scenario, network, batch_delay=0.2) == [[("a", 1)], [("b", 2)], [("a", 3)]]
    assert network.passes == [("a", [1, 3]), ("b", [2])]


def test_a_request_of_many_lets_others_go_before():
    """The single pictures come when the other request has long waited, and are in the next pass."""
    network = Network()
    network.go.clear()

    async def scenario(batcher):
        many = asyncio.create_task(batcher.answers(squares(*range(100)), "as is"))
        await asyncio.sleep(0.1)  # the first pass is under way
        singles = [asyncio.create_task(batcher.answers(squares(200 + i), "as is")) for i in range(3)]
        await asyncio.sleep(0.05)
        network.go.set()
        await asyncio.gather(many, *singles)

    serve(scenario, network, batch=8, max_waiting=200)
    assert network.passes[0] == ("as is", list(range(8)))
    assert set(network.passes[1][1]) >= {200, 201, 202}
    assert sorted(value for _, values in network.passes for value in values) == [*range(100), 200, 201, 202]


def test_where_too_many_wait_the_request_with_the_most_is_refused():
    network = Network()
    network.go.clear()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.answers(squares(1), "as is"))
        await asyncio.sleep(0.1)
        greedy = asyncio.create_task(batcher.answers(squares(*[2] * 9), "as is"))
        modest = [asyncio.create_task(batcher.answers(squares(i), "as is")) for i in (3, 4)]
        with pytest.raises(Overloaded):
            await greedy
        network.go.set()
        return await asyncio.gather(first, *modest)

    assert serve(scenario, network, max_waiting=10) == [[("as is", 1)], [("as is", 3)], [("as is", 4)]]
    assert all(2 not in values for _, values in network.passes)


def test_a_request_alone_that_is_too_large():
    async def scenario(batcher):
        with pytest.raises(Overloaded):
            await batcher.answers(squares(*[1] * 11), "as is")
        return await batcher.answers(squares(1), "as is")

    assert serve(scenario, max_waiting=10) == [("as is", 1)]


def test_a_pass_that_fails_fails_its_own_requests_alone():
    async def scenario(batcher):
        with pytest.raises(RuntimeError, match="unlucky"):
            await batcher.answers(squares(255), "as is")
        return await batcher.answers(squares(14), "as is")

    assert serve(scenario) == [("as is", 14)]


def test_a_request_that_has_ended_takes_no_pass():
    network = Network()
    network.go.clear()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.answers(squares(1), "as is"))
        await asyncio.sleep(0.1)
        gone = asyncio.create_task(batcher.answers(squares(2), "as is"))
        await asyncio.sleep(0.01)
        gone.cancel()
        network.go.set()
        await first
        return await batcher.answers(squares(3), "as is")

    assert serve(scenario, network) == [("as is", 3)]
    assert [values for _, values in network.passes] == [[1], [3]]
