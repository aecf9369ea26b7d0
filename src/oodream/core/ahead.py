"""Work that is done ahead: the next items of an iterator, made by a thread while the last one is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")
END = object()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order; up to `depth` of them are made while the caller uses one before them.

    One thread makes them all, so they may share state with one another, but not with the caller. What making
    one raises is raised when it is its turn.
    """
    iterator, pool = iter(items), ThreadPoolExecutor(1)
    try:
        coming = deque(pool.submit(next, iterator, END) for _ in range(depth))
        while (item := coming.popleft().result()) is not END:
            coming.append(pool.submit(next, iterator, END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
