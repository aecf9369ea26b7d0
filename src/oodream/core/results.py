"""core.results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


def row_to_json(row: Row | ShiftRow) -> str:
    """One line of JSON."""
    return json.dumps(asdict(row), allow_nan=False)


def row_from_json(line: str) -> Row:
    """The row that `row_to_json` wrote; ValueError for one of another version."""
    fields = json.loads(line)
    if unlike := sorted(fields.keys() ^ Row.__dataclass_fields__.keys()):
        raise ValueError(
            f"This row of results is of another version ({', '.join(unlike)}). Measure again: --redo scores."
        )
    return Row(
        **fields | {"intervals": {name: (low, high) for name, (low, high) in fields["intervals"].items()}}
    )


def shift_row_from_json(line: str) -> ShiftRow:
    """The measurement that `row_to_json` wrote; ValueError for one of another version."""
    fields = json.loads(line)
    if unlike := sorted(fields.keys() ^ ShiftRow.__dataclass_fields__.keys()):
        raise ValueError(
            f"This accuracy is of another version ({', '.join(unlike)}). Measure again: --redo shifts."
        )
    return ShiftRow(**fields | {"interval": tuple(fields["interval"])})


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number set: a detector on a classifier, ID test set against one OOD set (or a mean over a group of sets).

    Rates are in [0, 1]. `fpr95_id`: share of OOD accepted when at least 95 % of ID is accepted; `fpr95_ood`: share of ID flagged
    when at least 95 % of OOD is flagged. `autc` is lower the better, `oscr` counts only ID images that are rightly classified, and
    `accuracy` and `calibration_error` are those of the classifier alone; `misclassification_auroc` is the AUROC by which the score tells
    wrongly classified ID test images from the others (None: there are none of one kind). `intervals` holds (low, high) by field
    name. A mean's `dataset` is "mean".
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
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShiftRow:
    """The share of a shifted set's images, all of known classes, that a classifier names rightly, with its 95 % interval.

    `severity` is that of a corruption, 0 for a set that is not one. `refused` is the share of the images whose energy lies above
    the classifier's limit, which accepts 95 % of the test images.
    """

    classifier: str
    seed: int
    dataset: str
    severity: int
    accuracy: float
    refused: float
    interval: tuple[float, float]
    n: int
