"""Items that are made ahead: the same ones in the same order, while the caller works."""

from __future__ import annotations

import threading

import pytest

from oodream.core.ahead import ahead


def test_all_items_come_in_order():
    assert list(ahead(iter(range(50)), depth=3)) == list(range(50))
    assert list(ahead([])) == []


def test_the_next_items_are_made_while_one_is_used():
    made = [threading.Event() for _ in range(4)]

    def items():
        for i, event in enumerate(made):
            event.set()
            yield i

    coming = ahead(items(), depth=2)
    assert next(coming) == 0
    assert made[2].wait(10)  # two more than are used
    assert not made[3].wait(0.05)
    assert list(coming) == [1, 2, 3]


def test_what_making_one_raises_is_raised_in_its_turn():
    def items():
        yield 1
        raise KeyError("broken")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(KeyError, match="broken"):
        next(coming)


def test_who_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    coming = ahead(iter(range(1000)))
    next(coming)
    coming.close()
    assert threading.active_count() == before
