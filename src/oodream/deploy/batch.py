"""A guard as one function of batches of columns, for frameworks that hand them out: `map` of datasets,
`map_batches` of Ray Data, pandas functions of Spark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import StoreError
from ..data.stream import HUB
from . import tables
from .loading import load_any
from .scoring import Answer, answers_to, read_or_why

if TYPE_CHECKING:
    from ..runtime.guard import Guard as GraphGuard
    from .guard import Guard

__all__ = ["COLUMNS", "SPARK_SCHEMA", "GuardMap"]

TYPES = {"string": str, "bool": bool, "double": float}
COLUMNS: dict[str, type] = {name: TYPES[kind] for name, kind in tables.COLUMNS.items() if name != "file"}
"""What is said of each picture."""
SPARK_SCHEMA = ", ".join(f"{name} {tables.COLUMNS[name].replace('bool', 'boolean')}" for name in COLUMNS)
"""The columns in the words of Spark."""
EMPTY = {str: "", bool: False, float: np.nan}


@dataclass(frozen=True, kw_only=True)
class GuardMap:
    """A function from batches of columns to batches of columns: what the guard in `folder` says of each
    picture in `column`, with `answer`, `flagged`, `score` and so on (`COLUMNS`), and `error`.

    `folder` is as in `Guard.load`, or the file of a graph, which is asked without PyTorch, as a folder's is
    where PyTorch is not installed. `alpha` is as in `Guard.at`. A picture is whatever `Guard.predict` takes;
    of one that cannot be read `error` says why, and elsewhere it is empty. The columns `keep` are handed
    through.

    It is pickled by name: another process loads the guard from the same place, once, and refuses if it is
    another one there. Raises what `Guard.load` and `Guard.at` raise.
    """

    folder: str | Path
    column: str = "image"
    alpha: float | None = None
    keep: tuple[str, ...] = ()
    device: str = "cpu"
    plugins: bool = False
    made_with: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        place = str(self.folder)
        if not place.startswith(HUB):
            place = str(Path(place).resolve())  # a worker's directory is another
        object.__setattr__(self, "folder", place)
        object.__setattr__(self, "keep", tuple(self.keep))
        guard = _load(self)
        object.__setattr__(self, "made_with", json.dumps(guard.identity()))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The columns for a batch, which may also be a table of pandas; every column is an array (B,)."""
        guard = _loaded(self)
        squares = [read_or_why(picture, guard.size, guard.white) for picture in batch[self.column]]
        answers = answers_to(guard, squares)
        columns = {name: np.asarray(batch[name]) for name in self.keep}
        for name, kind in COLUMNS.items():
            columns[name] = np.array([_value(answer, name, kind) for answer in answers], kind)
        return columns


def _load(wanted: GuardMap) -> Guard | GraphGuard:
    guard = load_any(str(wanted.folder), wanted.device, wanted.plugins)
    return guard if wanted.alpha is None else guard.at(wanted.alpha)


@lru_cache(maxsize=4)
def _loaded(wanted: GuardMap) -> Guard | GraphGuard:
    """The guard, loaded once by a process that unpickles equal functions many times."""
    guard = _load(wanted)
    if json.dumps(guard.identity()) != wanted.made_with:
        raise StoreError(f"The guard in {wanted.folder} is not the one that this job was begun with.")
    return guard


def _value(answer: Answer, column: str, kind: type) -> Any:
    """What stands in a column, which has one type whatever a batch holds."""
    if isinstance(answer, str):
        return answer if column == "error" else EMPTY[kind]
    value = getattr(answer, column, None)
    return EMPTY[kind] if value is None else value
