"""Work on many items by several threads, and what they must not do at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["MAKING", "mapped"]

MAKING = threading.RLock()
"""Held while networks are made or loaded: while diffusers loads one, all networks that other threads make
have no memory (accelerate's `init_empty_weights` exchanges a method of every `torch.nn.Module`)."""
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
