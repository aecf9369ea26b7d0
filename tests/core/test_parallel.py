"""Work side by side."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from oodream.core.parallel import side_by_side, threads


def test_results_come_in_order_and_are_worked_on_together():
    meet = threading.Barrier(3)  # nobody passes it alone

    def work(i: int) -> int:
        meet.wait(20)
        time.sleep(0.01 * (3 - i % 3))
        return 10 * i

    assert list(side_by_side(work, range(9), 3)) == [10 * i for i in range(9)]


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    results = side_by_side(lambda i: i, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4
    results.close()


def test_one_at_a_time_is_the_callers_own_thread():
    assert set(side_by_side(lambda _: threading.get_ident(), range(3), 1)) == {threading.get_ident()}


def test_each_piece_has_one_thread_and_the_caller_has_his_again():
    with threads(3):
        assert set(side_by_side(lambda _: torch.get_num_threads(), range(4), 2)) == {1}
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("recorded", [True, False])
def test_gradients_are_recorded_where_the_caller_records_them(at_once, recorded):
    x = torch.ones(1, requires_grad=True)
    with torch.set_grad_enabled(recorded):
        assert [y.requires_grad for y in side_by_side(lambda i: i * x, range(3), at_once)] == [recorded] * 3


def test_an_error_comes_at_its_turn_and_ends_the_others():
    ended = threading.Event()

    def work(i: int) -> int:
        if i == 1:
            raise ValueError("piece 1")
        if i == 2:
            try:
                while True:
                    time.sleep(0.001)
            finally:
                ended.set()
        return i

    results = side_by_side(work, range(20), 3)
    assert next(results) == 0
    began = threading.active_count()
    with pytest.raises(ValueError, match="piece 1"):
        next(results)
    assert ended.is_set()
    assert threading.active_count() < began


def test_who_stops_asking_ends_the_work():
    ended = threading.Event()

    def work(i: int) -> int:
        try:
            while i:
                time.sleep(0.001)
        finally:
            ended.set() if i else None
        return i

    results = side_by_side(work, range(3), 2)
    assert next(results) == 0
    results.close()
    assert ended.is_set()
