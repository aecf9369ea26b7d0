"""The errors that people see, and how their messages list things and show paths."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence

__all__ = [
    "DataError",
    "MissingCode",
    "StoreError",
    "are",
    "brief",
    "did_you_mean",
    "first_line",
    "listed",
    "shown",
]

LISTED = 10
BRIEF = 100  # characters of a value in a message


class DataError(ValueError):
    """An image set cannot be used; the message says which, why and what to do."""


class MissingCode(ValueError):
    """Code that something names cannot be imported here; the message says which, why and what to install."""


class StoreError(RuntimeError):
    """The disk or the run folder refuses; the message says where and what to do."""


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first ten items, and how many more there are."""
    texts = list(items)
    more = [f"… and {len(texts) - LISTED} more"] if len(texts) > LISTED else []
    return separator.join(texts[:LISTED] + more)


def are(names: Sequence[str], noun: str = "files") -> str:
    """How a sentence on what has these names begins: "a.png is"; "12 files (a.png, b.png, …) are"."""
    return f"{names[0]} is" if len(names) == 1 else f"{len(names):,} {noun} ({listed(names)}) are"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence, after a space, with the known name that is written most alike; empty where none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def brief(value: object) -> str:
    """A value as Python writes it, cut short where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python prints; thousands of levels
        return f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}… ({len(text):,} characters)"


def first_line(error: BaseException) -> str:
    """The first line of a foreign message, ended with a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:") + "."


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people: bytes that are no UTF-8, and characters that no terminal prints, are escaped.

    The text can be printed, written and hashed anywhere. It need not lead back to the file.
    """
    try:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half characters that stand for no bytes, as JSON may hold them
        text = os.fsdecode(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
