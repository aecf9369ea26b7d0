"""The page's numbers: cells with intervals, lines by image set, accuracies under shift, and the headline in
words.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.results import Row, ShiftRow
from .content import Report

__all__ = [
    "METRICS",
    "Cell",
    "Key",
    "Line",
    "ShiftTable",
    "certainty",
    "headline",
    "key_figures",
    "measured_lines",
    "shift_tables",
    "spread",
    "summarize",
    "summarize_shifts",
]

METRICS = {
    "fpr95_id": "FPR95, ID fixed",
    "fpr95_ood": "FPR95, OOD fixed",
    "auroc": "AUROC",
    "aupr_out": "AUPR, OOD positive",
    "aupr_in": "AUPR, ID positive",
    "accuracy": "ID accuracy",
}
ORDER = {"near": 0, "far": 1, "all": 3, "control": 4}
"""Places of the groups on the page; other groups come before "all"."""
Key = tuple[str, str]
"""Classifier and detector."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A metric in percent with an interval: `spread` is "± sd" over seeds, or the bootstrap's "low–high" for
    one.
    """

    value: float
    low: float
    high: float
    spread: str

    @property
    def text(self) -> str:
        """The value with one decimal."""
        return "–" if math.isnan(self.value) else f"{self.value:.1f}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was measured on one set, or the mean of a group: `cells[metric][classifier, detector]`."""

    name: str
    group: str
    n: int
    description: str
    cells: Mapping[str, Mapping[Key, Cell]]

    def best(self, metric: str, keys: Sequence[Key]) -> set[Key]:
        """Those of `keys` with the best value, ties as printed; empty with nothing to compare, and for a
        control.
        """
        if self.group == "control":
            return set()
        cells = {k: c for k in keys if (c := self.cells[metric].get(k)) and not math.isnan(c.value)}
        pick = min if metric.startswith("fpr") else max
        top = pick((round(c.value, 1) for c in cells.values()), default=None)
        return {k for k, c in cells.items() if round(c.value, 1) == top} if len(cells) > 1 else set()


def spread(values: Sequence[float], interval: tuple[float, float] | None) -> Cell:
    """The mean of one value in percent for each seed, with the standard deviation over seeds.

    A single seed's value has the interval (two shares), if there is one.
    """
    mean = statistics.fmean(values)
    if len(values) > 1:
        sd = statistics.stdev(values)
        return Cell(value=mean, low=mean - sd, high=mean + sd, spread=f"± {sd:.1f}")
    if interval:
        low, high = (100 * bound for bound in interval)
        return Cell(value=mean, low=low, high=high, spread=f"{low:.1f}–{high:.1f}")
    return Cell(value=mean, low=mean, high=mean, spread="")


def summarize(rows: Sequence[Row], metric: str) -> Cell:
    """The metric's mean over rows that differ by seed."""
    return spread([100 * getattr(row, metric) for row in rows], rows[0].intervals.get(metric))


def measured_lines(content: Report) -> list[Line]:
    """Lines in reading order: sets as in `content.sets`, near before far, each group before its mean;
    controls last.
    """
    sets = {s.name: s for s in content.sets}
    order = {name: i for i, name in enumerate(sets)}
    measured: dict[tuple[str, str], dict[Key, list[Row]]] = {}
    for row in content.rows:
        by_key = measured.setdefault((row.group, row.dataset), {})
        by_key.setdefault((row.classifier, row.detector), []).append(row)

    def place(group: str, name: str) -> tuple[int, str, bool, int]:
        return ORDER.get(group, 2), group, name == "mean", order.get(name, len(order))

    return [
        Line(
            name=name,
            group=group,
            description=sets[name].description if name in sets else "",
            n=max(row.n_ood for rows in by_key.values() for row in rows),
            cells={m: {key: summarize(rows, m) for key, rows in by_key.items()} for m in METRICS},
        )
        for (group, name), by_key in sorted(measured.items(), key=lambda item: place(*item[0]))
    ]


def _mean_cells(content: Report, lines: Sequence[Line], group: str, metric: str) -> list[Cell]:
    """The baseline's and the final classifier's mean over a group (one when they are the same), as far as
    measured.
    """
    line = next((line for line in lines if line.name == "mean" and line.group == group), None)
    names = list(content.classifiers)
    cells = line.cells[metric] if line else {}
    keys = [(name, content.detector) for name in dict.fromkeys((names[0], names[-1]))]
    return [cells[key] for key in keys if key in cells]


@dataclass(frozen=True, kw_only=True)
class ShiftTable:
    """Accuracies on sets of one sort: `cells[set][column][classifier]`, and how many images a set has."""

    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    n: Mapping[str, int]


def summarize_shifts(
    rows: Sequence[ShiftRow], classifier: str, metric: str, interval: tuple[float, float] | None = None
) -> Cell:
    """A classifier's mean "accuracy" or share "flagged" over shifted sets, in percent, with the spread over
    seeds.
    """
    of_classifier = [row for row in rows if row.classifier == classifier]
    values = [
        100 * statistics.fmean(getattr(row, metric) for row in of_classifier if row.seed == seed)
        for seed in sorted({row.seed for row in of_classifier})
    ]
    return spread(values, interval)


def shift_tables(content: Report) -> list[ShiftTable]:
    """The corruptions by severity, with means over rows and columns, then the other shifted sets."""

    def cells(rows: Sequence[ShiftRow]) -> dict[str, Cell]:
        # Corruptions share their images, so their intervals say nothing about that of a mean.
        interval = None if rows[0].severity else rows[0].interval
        return {name: summarize_shifts(rows, name, "accuracy", interval) for name in content.classifiers}

    tables = []
    corrupted = [row for row in content.shifts if row.severity]
    others = [row for row in content.shifts if not row.severity]
    for part in filter(None, (corrupted, others)):
        severities = sorted({row.severity for row in part})
        columns = {f"severity {s}" if s else "accuracy": {s} for s in severities}
        sets = {row.dataset: {row.dataset} for row in part}
        if part is corrupted:
            columns, sets = {"mean": set(severities)} | columns, sets | {"mean": set(sets)}
        table = {
            name: {
                column: cells([row for row in part if row.dataset in members and row.severity in wanted])
                for column, wanted in columns.items()
            }
            for name, members in sets.items()
        }
        tables.append(ShiftTable(cells=table, n={row.dataset: row.n for row in part}))
    return tables


def headline(content: Report, lines: Sequence[Line], shifts: Sequence[ShiftTable]) -> tuple[str, str]:
    """The result in one plain sentence, and one about how certain it is."""
    if content.kind == "inlier" and shifts and "mean" in shifts[0].cells:
        return _headline_of_shifts(content, lines, shifts[0])
    baseline = next(iter(content.classifiers))
    accepted = _mean_cells(content, lines, "all", "fpr95_id")
    accuracy = _mean_cells(content, lines, "all", "accuracy")
    if lines and not accepted:
        return f"No mean over all unknown images was measured with the {content.detector} score.", ""
    if not accepted:
        return "No unknown images were given, so it is not known yet how well this classifier flags them.", ""
    base, final = accepted[0], accepted[-1]
    condition = "while still accepting 95\u00a0% of known ones"
    if len(accepted) == 1:
        text = (
            f"Accepts {final.text}\u00a0% of unknown images {condition}; accuracy {accuracy[-1].text}\u00a0%."
        )
        return text, f"Interval {final.spread}." if final.spread else ""
    comparison = "instead of" if final.value < base.value else f"where {baseline} accepts"
    text = (
        f"Accepts {final.text}\u00a0% of unknown images {comparison} {base.text}\u00a0% {condition}; "
        f"accuracy {accuracy[-1].text}\u00a0% vs {accuracy[0].text}\u00a0%."
    )
    near = _near_loss(*_mean_cells(content, lines, "near", "auroc"))
    return text, f"{certainty(base, final)} {near}".strip()


def _near_loss(*auroc: Cell) -> str:
    """A warning where the last of these classifiers is worse near the known classes than the first one."""
    if len(auroc) < 2 or auroc[-1].value >= auroc[0].value:
        return ""
    return (
        f"Near-unknown images are told apart worse than by the baseline: AUROC {auroc[-1].text}\u00a0% "
        f"against {auroc[0].text}\u00a0%."
    )


def _headline_of_shifts(content: Report, lines: Sequence[Line], corrupted: ShiftTable) -> tuple[str, str]:
    names = list(content.classifiers)
    mean = corrupted.cells["mean"]["mean"]
    base, final = mean[names[0]], mean[names[-1]]
    clean = _mean_cells(content, lines, "all", "accuracy")
    text = (
        f"Classifies {final.text}\u00a0% of corrupted images correctly, "
        f"where {names[0]} does {base.text}\u00a0%"
    )
    text += f"; of clean ones {clean[-1].text}\u00a0% vs {clean[0].text}\u00a0%." if clean else "."
    return text, certainty(base, final)


def certainty(base: Cell, final: Cell) -> str:
    """Both values with their intervals, and whether these overlap; empty where there are none."""
    if not (base.spread and final.spread):
        return ""
    overlap = final.high >= base.low and base.high >= final.low
    warning = "The intervals overlap: this difference may be chance." if overlap else ""
    return f"{final.text} ({final.spread}) against {base.text} ({base.spread}). {warning}".strip()


def key_figures(content: Report, lines: Sequence[Line]) -> list[tuple[str, list[Cell]]]:
    """The key figures' names, and the baseline's and the final classifier's value of each."""
    wanted = {
        "unknown images accepted": ("all", "fpr95_id"),
        "near-unknown images accepted": ("near", "fpr95_id"),
        "AUROC, all sets": ("all", "auroc"),
        "accuracy on known images": ("all", "accuracy"),
    }
    figures = ((label, _mean_cells(content, lines, *where)) for label, where in wanted.items())
    return [(label, cells) for label, cells in figures if cells]
