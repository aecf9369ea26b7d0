"""Work on many items by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["mapped"]

TOGETHER = 1024

T = TypeVar("T")
R = TypeVar("R")


def mapped(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """What `work` gives for each item, in their order.

    Items are handed to the threads a thousand at a time: a pool keeps an object for each that it was handed.
    """
    rest = iter(items)
    with ThreadPoolExecutor() as pool:
        while some := list(islice(rest, TOGETHER)):
            yield from pool.map(work, some)
