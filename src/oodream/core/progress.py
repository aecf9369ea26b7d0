"""A progress line for long work."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from .distributed import is_main

__all__ = ["progress"]

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, done: int = 0, what: str, unit: str) -> Iterable[T]:
    """Iterates with a progress line: share, rate and time left.

    Where there is no terminal, plain lines come a minute apart. Of several processes the first one alone
    shows it.
    """
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    interval = 30.0 if quiet else 0.2
    return tqdm(
        items,
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        mininterval=interval,
        maxinterval=60,
        dynamic_ncols=not quiet,
        disable=not is_main(),
    )
