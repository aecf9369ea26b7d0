"""Files of a run, read with messages that say which stage to make again."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from ..core.errors import StoreError
from ..core.files import MAX_JSON, json_lines, parse_json, read_json
from ..core.tensors import load_tensors
from ..core.types import Json

__all__ = ["Lines", "again", "read_lines", "read_object", "read_tensors"]


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


def read_lines(file: Path, stage: str, parse: Callable[[str], Any], least: int = 1) -> list[Any]:
    """What `parse` makes of a file's lines; at least `least` of them.

    Raises StoreError for a file that is missing, damaged or shorter.
    """
    with _undamaged(file, stage):
        if len(lines := list(json_lines(file, parse))) < least:
            raise ValueError("it is empty")
        return lines


class Lines:
    """The JSON values of a file's lines, or what `parse` makes of the lines. Each is read when it is asked
    for, so memory holds no more than where lines begin.

    All are looked at once, when this is made. Raises StoreError, then and later, for a file that is missing
    or damaged, or has no line.
    """

    def __init__(self, file: Path, stage: str, parse: Callable[[str], Any] = parse_json) -> None:
        self._file, self._stage, self._parse = file, stage, parse
        self._starts = array("q")
        with _undamaged(file, stage), file.open("rb") as opened:
            while line := opened.readline(MAX_JSON):
                if line.strip():
                    self._starts.append(opened.tell() - len(line))
                    parse(line.decode())
            if not self._starts:
                raise ValueError("it is empty")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int | slice) -> Any:
        """A row's value, or a list of those of a slice; IndexError and TypeError as a list has them."""
        rows = range(len(self))[row]
        with _undamaged(self._file, self._stage), self._file.open("rb") as opened:
            return [self._at(m, opened) for m in rows] if isinstance(rows, range) else self._at(rows, opened)

    def _at(self, row: int, opened: BinaryIO) -> Any:
        opened.seek(self._starts[row])
        return self._parse(opened.readline(MAX_JSON).decode())

    def __iter__(self) -> Iterator[Any]:
        with _undamaged(self._file, self._stage):
            yield from json_lines(self._file, self._parse)


@contextmanager
def _undamaged(file: Path, stage: str) -> Iterator[None]:
    """Within the block, what is missing or damaged becomes a StoreError that says what to make again."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{file} is missing. {again(stage)}") from error
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
