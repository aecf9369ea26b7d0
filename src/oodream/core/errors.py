"""core.errors."""

from __future__ import annotations

from collections.abc import Iterable


class DataError(ValueError):
    """An image set cannot be used; the message says which, why and what to do."""


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first ten items, and how many more there are."""
    shown = list(items)
    return separator.join(shown[:10]) + (
        f"{separator}… and {len(shown) - 10} more" if len(shown) > 10 else ""
    )


class StoreError(RuntimeError):
    """The disk or the run folder refuses; the message says where and what to do."""
