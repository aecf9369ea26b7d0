"""The errors that people see, and how their messages list things and show paths."""

from __future__ import annotations

import os
from collections.abc import Iterable

__all__ = ["DataError", "StoreError", "listed", "shown"]

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


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people: bytes that are no UTF-8, and characters that no terminal prints, are escaped.

    The text can be printed, written and hashed anywhere. It need not lead back to the file.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
