"""The errors that people see, and how their messages list things."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DataError", "StoreError", "listed"]

LISTED = 10


class DataError(ValueError):
    """An image set cannot be used; the message says which, why and what to do."""


class StoreError(RuntimeError):
    """The disk or the run folder refuses; the message says where and what to do."""


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first ten items, and how many more there are."""
    texts = list(items)
    more = [f"… and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return separator.join(texts[:LISTED] + more)
