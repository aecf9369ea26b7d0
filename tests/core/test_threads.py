"""Many items by several threads, in their order and not all at once."""

from __future__ import annotations

from oodream.core.threads import TOGETHER, mapped


def test_items_keep_their_order_and_are_taken_when_it_is_their_turn():
    taken: list[int] = []

    def items():
        for i in range(3 * TOGETHER):
            taken.append(i)
            yield i

    results = mapped(lambda i: i * i, items())
    assert next(results) == 0
    assert len(taken) == TOGETHER
    assert list(results) == [i * i for i in range(1, 3 * TOGETHER)]
