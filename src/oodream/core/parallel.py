"""Pieces of work side by side on a processor's cores, each on one thread.

Operations of small networks are too short to be shared: threads that share one wait for each other longer
than they compute, and beside another program much longer. Pieces that share nothing take turns with anything,
and their results do not depend on how many cores there are.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["CORES", "side_by_side", "threads", "use_cores"]

T = TypeVar("T")
R = TypeVar("R")

CORES = torch.get_num_threads()
"""the cores that this process uses: as many threads as PyTorch began with"""


def use_cores(n: int) -> None:
    """This process uses n cores from here on."""
    global CORES
    CORES = n
    torch.set_num_threads(n)


interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc


class _Ended(BaseException):
    """Raised in a piece of work whose result nobody waits for any more."""


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Within the block, PyTorch's operations are shared by n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(work: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[R]:
    """The results of `work`, in the order of the items; `at_once` of them are worked on together.

    Gradients are recorded where they are in the caller. What one piece raises is raised when it is its turn;
    then, and when the caller stops, the others are interrupted.
    """
    if at_once == 1:
        yield from map(work, items)
        return
    recorded, working, lock = torch.is_grad_enabled(), set[int](), threading.Lock()

    def piece(item: T) -> R:
        with lock:
            working.add(threading.get_ident())
        try:
            with torch.set_grad_enabled(recorded):
                return work(item)
        finally:
            with lock:  # so that who is interrupted is still in here
                working.discard(threading.get_ident())

    with threads(1):
        pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,))
        coming = deque[Future[R]]()
        try:
            for item in items:
                coming.append(pool.submit(piece, item))
                if len(coming) > at_once:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            with lock:
                for thread in working:
                    interrupt(ctypes.c_ulong(thread), ctypes.py_object(_Ended))
            pool.shutdown()
