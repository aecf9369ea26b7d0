"""What is measured, as rows of numbers, and their lines of JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from .errors import brief, listed
from .files import parse_json, write_bytes
from .options import is_number, is_whole

__all__ = [
    "CORRUPTED",
    "Row",
    "ShiftRow",
    "row_from_json",
    "row_to_json",
    "shift_row_from_json",
    "write_rows",
]

CORRUPTED = "corruptions"
"""What stands for all corruptions where shifted sets go by name; no folder is called so."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number set: a detector on a classifier, the ID test set against one OOD set, or a mean
    over sets.

    Rates are in [0, 1]. `fpr95_id` is the share of OOD accepted when at least 95 % of ID is accepted.
    `fpr95_ood` is the share of ID flagged when at least 95 % of OOD is flagged. `autc` is better the lower it
    is. `oscr` counts only ID images that are rightly classified. `accuracy` and `calibration_error` are those
    of the classifier alone. `misclassification_auroc` tells wrongly classified ID test images from the others
    (None: there are none of one kind), and `aurc` and `augrc` are the areas under the curves of the risk of a
    wrong answer (None in rows of an earlier version). `intervals` holds (low, high) by field name. A mean's
    `dataset` is "mean".
    """

    classifier: str
    detector: str
    dataset: str
    group: str
    seed: int
    auroc: float
    aupr_out: float
    aupr_in: float
    fpr95_id: float
    fpr95_ood: float
    autc: float
    oscr: float
    accuracy: float
    calibration_error: float
    misclassification_auroc: float | None
    n_id: int
    n_ood: int
    aurc: float | None = None
    augrc: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShiftRow:
    """How a classifier does on a shifted set, whose images are all of known classes.

    `accuracy` is the share that it names rightly, with its 95 % `interval`. `flagged` is the share whose
    energy, whatever detectors are measured, lies above the classifier's threshold, which accepts 95 % of the
    test images. `severity` is a corruption's, 0 for any other set.
    """

    classifier: str
    seed: int
    dataset: str
    severity: int
    accuracy: float
    flagged: float
    interval: tuple[float, float]
    n: int


def row_to_json(row: Row | ShiftRow) -> str:
    """One line of JSON."""
    return json.dumps(asdict(row), allow_nan=False)


def write_rows(file: Path, rows: Iterable[Row | ShiftRow]) -> None:
    """Writes rows, a line for each, whole or not at all."""
    write_bytes(file, (f"{row_to_json(row)}\n".encode() for row in rows))


def row_from_json(line: str) -> Row:
    """The row that `row_to_json` wrote.

    Raises ValueError for a line of another version, or one that is no row.
    """
    fields = _fields(line, Row, "scores")
    intervals = fields.get("intervals", {})
    if not isinstance(intervals, dict):
        raise ValueError(f"A row's 'intervals' are {brief(intervals)}. Measure again: --redo scores.")
    pairs = {name: _pair(name, interval, "scores") for name, interval in intervals.items()}
    return Row(**fields | {"intervals": pairs})


def shift_row_from_json(line: str) -> ShiftRow:
    """The row that `row_to_json` wrote.

    Raises ValueError for a line of another version, or one that is no row.
    """
    fields = _fields(line, ShiftRow, "shift")
    return ShiftRow(**fields | {"interval": _pair("interval", fields["interval"], "shift")})


def _fields(line: str, kind: type, stage: str) -> dict[str, Any]:
    fields = parse_json(line)
    if not isinstance(fields, dict):
        raise ValueError(f"A line of results is {brief(line)}, and not a row. Measure again: --redo {stage}.")
    known = dataclasses.fields(kind)
    required = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if unlike := sorted((required - fields.keys()) | (fields.keys() - {f.name for f in known})):
        raise ValueError(
            f"A row of results is of another version ({listed(unlike)}). Measure again: --redo {stage}."
        )
    for name, hint in _hints(kind).items():
        value = fields.get(name)
        if not _fits(value, hint) and name in fields:
            raise ValueError(f"A row's {name!r} is {brief(value)}. Measure again: --redo {stage}.")
    return fields


_hints = functools.cache(get_type_hints)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is a text, a whole number, or a finite one, as its field has it; fields of several
    values are looked at elsewhere.
    """
    if hint is str:
        return isinstance(value, str)
    if hint is int:
        return is_whole(value)
    if hint is float or hint == float | None:
        return is_number(value) or (value is None and hint is not float)
    return True


def _pair(name: str, value: Any, stage: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        raise ValueError(f"A row's interval {name!r} is {brief(value)}. Measure again: --redo {stage}.")
    return value[0], value[1]
