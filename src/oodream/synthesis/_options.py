"""The check of an extension's options: each against its field's annotation, with the option's name in the message."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Annotated, Any, Literal

from ..core.options import Range

__all__ = ["check_options"]

KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def check_options(extension: Any) -> None:
    """Raises ValueError for the first field of a dataclass that is not of its type, or out of its Range or Literal."""
    hints = typing.get_type_hints(type(extension), include_extras=True)
    for field in dataclasses.fields(extension):
        value, hint = getattr(extension, field.name), hints[field.name]
        if field.init and not _fits(value, hint):
            raise ValueError(f"{field.name} must be {_described(hint)}, not {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits(value, parts[0]) and all(value in note for note in parts[1:] if isinstance(note, Range))
    if origin is Literal:
        return value in parts
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint


def _described(hint: Any) -> str:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([_described(parts[0]), *(str(note) for note in parts[1:])])
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, parts))
    return KINDS.get(hint, "none")
