"""core.progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .distributed import is_main
from .files import T


def progress(items: Iterable[T], *, total: int, done: int = 0, what: str, unit: str) -> Iterable[T]:
    """Iterates with a progress line: share, rate and time left (plain lines a minute apart where there is no terminal)."""
    from tqdm import tqdm

    quiet = not sys.stderr.isatty()
    interval = 30.0 if quiet else 0.2
    return tqdm(
        items, total=total, initial=done, desc=what, unit=unit, mininterval=interval, maxinterval=60, dynamic_ncols=not quiet,
        disable=not is_main(),
    )  # fmt: skip
