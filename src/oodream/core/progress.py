"""A progress line for long work."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

from .processes import is_main

__all__ = ["EVERY", "counter", "hide", "progress"]

EVERY = "OODREAM_PROGRESS"
"""the variable with the seconds between two lines where there is no terminal"""
SECONDS = 3.0  # that work takes before it has a progress line

T = TypeVar("T")
_hidden = False


def hide() -> None:
    """Shows no progress lines in this process from here on."""
    from tqdm import tqdm

    global _hidden
    _hidden = True
    tqdm.set_lock(threading.RLock())  # its own lock of processes outlives one that is killed


def progress(items: Iterable[T], *, total: int, done: int = 0, what: str, unit: str) -> Iterable[T]:
    """Iterates with a progress line: share, rate and time left.

    Where there is no terminal, plain lines come half a minute apart, or as many seconds as the variable
    OODREAM_PROGRESS says. Of several processes the first one alone shows it.
    """
    return _line(items, total=total, initial=done, desc=what, unit=unit)


def counter(*, total: int, done: int = 0, what: str, unit: str) -> Any:
    """A progress line as `progress` shows it, within whose block `update(n)` counts `n` more; none for work
    of a few seconds.
    """
    return _line(None, total=total, initial=done, desc=what, unit=unit, delay=SECONDS)


@functools.cache
def _bar() -> Any:
    """tqdm's bar, which of one that Ctrl-C has left half made says nothing: closing it would fail."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __del__(self) -> None:
            if hasattr(self, "start_t"):  # what its maker sets last
                super().__del__()

    return Bar


def _line(items: Iterable[Any] | None, **options: Any) -> Any:
    quiet = not sys.stderr.isatty()
    interval = float(os.environ.get(EVERY, 30.0)) if quiet else 0.2
    return _bar()(
        items,
        mininterval=interval,
        maxinterval=60,
        dynamic_ncols=not quiet,
        disable=_hidden or not is_main(),
        **options,
    )
