"""The page's numbers: cells with intervals, lines by image set, accuracies under shift, and the headline in
words.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.results import CORRUPTED, Row, ShiftRow
from ..runtime.tails import wilson
from .content import Report

__all__ = [
    "METRICS",
    "Cell",
    "Key",
    "Line",
    "ShiftTable",
    "certainty",
    "flagged_corruptions",
    "headline",
    "key_figures",
    "measured_lines",
    "overlap",
    "shift_groups",
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
FLAGGED = "flagged"
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
    """What was measured on shifted sets of one sort: `cells[set][column][classifier]`, and how many images a
    set has. The column FLAGGED is the share of flagged images, the others are accuracies.
    """

    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    n: Mapping[str, int]


def shift_groups(rows: Sequence[ShiftRow]) -> dict[str, list[ShiftRow]]:
    """The rows of each folder of the user's, by its name, and then those of all corruptions, by CORRUPTED."""
    groups: dict[str, list[ShiftRow]] = {}
    for row in sorted(rows, key=lambda row: row.severity > 0):
        groups.setdefault(CORRUPTED if row.severity else row.dataset, []).append(row)
    return groups


def summarize_shifts(rows: Sequence[ShiftRow], classifier: str, metric: str) -> Cell:
    """A classifier's mean "accuracy" or share "flagged" over shifted sets, in percent, with the spread over
    seeds, or the interval of a single folder's images.

    All corruptions together weigh as much as a folder. They share their images, so their intervals say
    nothing about that of a mean.
    """
    of_classifier = [row for row in rows if row.classifier == classifier]
    values = []
    for seed in sorted({row.seed for row in of_classifier}):
        groups = shift_groups([row for row in of_classifier if row.seed == seed])
        means = [statistics.fmean(getattr(row, metric) for row in group) for group in groups.values()]
        values.append(100 * statistics.fmean(means))
    alone = len(of_classifier) == 1 and not of_classifier[0].severity
    return spread(values, _interval(of_classifier[0], metric) if alone else None)


def _interval(row: ShiftRow, metric: str) -> tuple[float, float]:
    """The 95 % interval over a set's images of its accuracy, or of the share flagged."""
    return row.interval if metric == "accuracy" else wilson(round(row.flagged * row.n), row.n)


def shift_tables(content: Report) -> list[ShiftTable]:
    """The user's folders, and the corruptions by severity with means over rows and columns."""
    groups = shift_groups(content.shifts)
    corrupted = groups.pop(CORRUPTED, [])
    folders = [row for rows in groups.values() for row in rows]
    tables = []
    if folders:
        columns = {metric: (metric, {0}) for metric in ("accuracy", FLAGGED)}
        tables.append(_shift_table(content, folders, columns, {name: {name} for name in groups}))
    if corrupted:
        severities = sorted({row.severity for row in corrupted})
        columns = {"mean": ("accuracy", {*severities})}
        columns |= {f"severity {s}": ("accuracy", {s}) for s in severities}
        names = list(dict.fromkeys(row.dataset for row in corrupted))
        sets = {name: {name} for name in names} | {"mean": {*names}}
        tables.append(_shift_table(content, corrupted, columns, sets))
    return tables


def _shift_table(
    content: Report,
    rows: Sequence[ShiftRow],
    columns: Mapping[str, tuple[str, set[int]]],
    sets: Mapping[str, set[str]],
) -> ShiftTable:
    """The means over sets' members, of each column's metric at the column's severities."""

    def cells(members: set[str], metric: str, severities: set[int]) -> dict[str, Cell]:
        part = [row for row in rows if row.dataset in members and row.severity in severities]
        return {name: summarize_shifts(part, name, metric) for name in content.classifiers}

    table = {
        name: {column: cells(members, *of) for column, of in columns.items()}
        for name, members in sets.items()
    }
    return ShiftTable(cells=table, n={row.dataset: row.n for row in rows})


def flagged_corruptions(content: Report) -> dict[str, Cell]:
    """The mean share flagged over corruptions, by classifier; empty where there are none."""
    corrupted = shift_groups(content.shifts).get(CORRUPTED)
    if not corrupted:
        return {}
    return {name: summarize_shifts(corrupted, name, FLAGGED) for name in content.classifiers}


def headline(content: Report, lines: Sequence[Line]) -> tuple[str, str]:
    """The result in one plain sentence, and one about how certain it is."""
    if content.kind == "inlier" and content.shifts:
        return _headline_of_shifts(content, lines)
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
    near = _near_loss(_mean_cells(content, lines, "near", "auroc"))
    return text, f"{certainty(base, final)} {near}".strip()


def _near_loss(auroc: Sequence[Cell]) -> str:
    """A warning where the last of these classifiers is worse near the known classes than the first one, with
    how certain that is.
    """
    if len(auroc) < 2 or auroc[-1].value >= auroc[0].value:
        return ""
    said = certainty(auroc[0], auroc[-1]) or f"{auroc[-1].text}\u00a0% against {auroc[0].text}\u00a0%."
    return f"Near-unknown images are told apart worse than by the baseline: AUROC {said}"


def _headline_of_shifts(content: Report, lines: Sequence[Line]) -> tuple[str, str]:
    """Accuracy on the user's folders, on corrupted images and on clean ones, as far as measured."""
    names, groups = list(content.classifiers), shift_groups(content.shifts)
    corrupted = groups.pop(CORRUPTED, [])
    folders = [row for rows in groups.values() for row in rows]
    place = next(iter(groups)) if len(groups) == 1 else f"{len(groups)} folders (mean)"
    measured = {
        what: [summarize_shifts(rows, name, "accuracy") for name in (names[0], names[-1])]
        for what, rows in ((f"the images in {place}", folders), ("corrupted images", corrupted))
        if rows
    }
    if clean := _mean_cells(content, lines, "all", "accuracy"):
        measured["clean ones"] = [clean[0], clean[-1]]
    (what, (base, final)), *others = measured.items()
    text = f"Classifies {final.text}\u00a0% of {what} correctly, where {names[0]} does {base.text}\u00a0%"
    text += "".join(f"; of {what} {b.text}\u00a0% vs {a.text}\u00a0%" for what, (a, b) in others)
    return f"{text}.", certainty(base, final)


def certainty(base: Cell, final: Cell) -> str:
    """Both values with their ranges, and whether these overlap; empty where there are none. A range is an
    interval, or the standard deviation over several trainings.
    """
    if not (base.spread and final.spread):
        return ""
    warning = "The ranges overlap: this difference may be chance." if overlap(base, final) else ""
    return f"{final.text} ({final.spread}) against {base.text} ({base.spread}). {warning}".strip()


def overlap(base: Cell, final: Cell) -> bool:
    """Whether two values have ranges, and these overlap."""
    return bool(base.spread and final.spread) and final.high >= base.low and base.high >= final.low


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
