"""Files of a run, read with messages that say which stage to make again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import StoreError
from ..core.files import read_json, read_json_lines
from ..core.tensors import load_tensors
from ..core.types import Json

__all__ = ["again", "read_lines", "read_object", "read_tensors"]


def again(stage: str) -> str:
    """What to do about a stage's missing or damaged file."""
    return f"Make it again: the command of the run with --redo {stage}"


def read_tensors(file: Path, stage: str, *names: str) -> dict[str, Tensor]:
    """The tensors of a file: those that are named, or all.

    Raises StoreError for a file that is missing, damaged or lacks one of them.
    """
    if not file.exists():
        raise StoreError(f"{file} is missing. {again(stage)}")
    tensors = load_tensors(file)
    if missing := [name for name in names if name not in tensors]:
        raise StoreError(f"{file} has no {missing[0]}. {again(stage)}")
    return {name: tensors[name] for name in names} if names else tensors


def read_lines(
    file: Path, stage: str, parse: Callable[[str], Any] | None = None, least: int = 1
) -> list[Any]:
    """The JSON values of a file's lines, or what `parse` makes of the lines; at least `least` of them.

    Raises StoreError for a file that is missing, damaged or shorter.
    """
    if not file.exists():
        raise StoreError(f"{file} is missing. {again(stage)}")
    try:
        if len(lines := read_json_lines(file, parse)) < least:
            raise ValueError("it is empty")
        return lines
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} is damaged ({error}). {again(stage)}") from error


def read_object(file: Path, stage: str, **kinds: type) -> Json:
    """A JSON object that has these keys with values of these types.

    Raises StoreError for anything else.
    """
    value = read_json(file) if file.exists() else None
    if not isinstance(value, dict) or not all(isinstance(value.get(k), kind) for k, kind in kinds.items()):
        raise StoreError(f"{file} is missing or damaged. {again(stage)}")
    return value
