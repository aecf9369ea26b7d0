"""report.tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.results import Row, ShiftRow
from .content import Report

COLUMNS = {
    "fpr95_id": "FPR95, ID fixed", "fpr95_ood": "FPR95, OOD fixed", "auroc": "AUROC",
    "aupr_out": "AUPR, OOD positive", "aupr_in": "AUPR, ID positive", "accuracy": "ID accuracy",
}  # fmt: skip


# Numbers


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric in percent with an interval: `spread` is "± sd" over seeds, or the bootstrap's "low–high" for one seed."""

    value: float
    low: float
    high: float
    spread: str

    @property
    def text(self) -> str:
        return "–" if math.isnan(self.value) else f"{self.value:.1f}"


Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was measured on one set, or the mean of a group: `cells[metric][classifier, detector]`."""

    name: str
    group: str
    n: int
    description: str
    cells: Mapping[str, Mapping[Key, Measure]]

    def best(self, metric: str, keys: Sequence[Key]) -> set[Key]:
        """Those of `keys` with the best value, ties as printed; empty with nothing to compare, and for a control."""
        if self.group == "control":
            return set()
        cells = {k: c for k in keys if (c := self.cells[metric].get(k)) and not math.isnan(c.value)}
        pick = min if metric.startswith("fpr") else max
        top = pick((round(c.value, 1) for c in cells.values()), default=None)
        return {k for k, c in cells.items() if round(c.value, 1) == top} if len(cells) > 1 else set()


def spread(values: Sequence[float], interval: tuple[float, float] | None) -> Measure:
    """The mean of one value in percent for each seed, with their deviation, or with the interval (shares) of a single one."""
    mean = statistics.fmean(values)
    if len(values) > 1:
        sd = statistics.stdev(values)
        return Measure(value=mean, low=mean - sd, high=mean + sd, spread=f"± {sd:.1f}")
    if interval:
        low, high = (100 * bound for bound in interval)
        return Measure(value=mean, low=low, high=high, spread=f"{low:.1f}–{high:.1f}")
    return Measure(value=mean, low=mean, high=mean, spread="")


def measure(rows: Sequence[Row], metric: str) -> Measure:
    """The metric's mean over rows that differ by seed."""
    return spread([100 * getattr(row, metric) for row in rows], rows[0].intervals.get(metric))


def measured_lines(content: Report) -> list[Line]:
    """Lines in reading order: sets as `content.sets` lists them, near before far, each followed by its mean; controls last."""
    sets = {s.name: s for s in content.sets}
    order = {name: i for i, name in enumerate(sets)}
    groups = {"near": 0, "far": 1, "all": 3, "control": 4}
    found: dict[tuple[str, str], dict[Key, list[Row]]] = {}
    for row in content.rows:
        found.setdefault((row.group, row.dataset), {}).setdefault((row.classifier, row.detector), []).append(
            row
        )

    def place(group: str, name: str) -> tuple[int, str, bool, int]:
        return groups.get(group, 2), group, name == "mean", order.get(name, len(order))

    return [
        Line(
            name=name, group=group, description=sets[name].description if name in sets else "",
            n=max(row.n_ood for rows in by_key.values() for row in rows),
            cells={metric: {key: measure(rows, metric) for key, rows in by_key.items()} for metric in COLUMNS},
        )
        for (group, name), by_key in sorted(found.items(), key=lambda item: place(*item[0]))
    ]  # fmt: skip


def _mean_cells(content: Report, lines: Sequence[Line], group: str, metric: str) -> list[Measure]:
    """The baseline's and the final classifier's mean over a group (one when they are the same), as far as measured."""
    line = next((line for line in lines if line.name == "mean" and line.group == group), None)
    names = list(content.classifiers)
    cells = line.cells[metric] if line else {}
    return [
        cells[name, content.detector]
        for name in dict.fromkeys((names[0], names[-1]))
        if (name, content.detector) in cells
    ]


@dataclass(frozen=True, kw_only=True)
class ShiftTable:
    """Accuracies on sets of one sort: `cells[set][column][classifier]`, and how many images a set has."""

    cells: Mapping[str, Mapping[str, Mapping[str, Measure]]]
    n: Mapping[str, int]


def shifted(
    found: Sequence[ShiftRow], classifier: str, metric: str, interval: tuple[float, float] | None = None
) -> Measure:
    """The mean over shifted sets of a classifier's "accuracy" or "refused", in percent, with the spread over seeds."""
    mine = [a for a in found if a.classifier == classifier]
    seeds = sorted({a.seed for a in mine})
    return spread(
        [100 * statistics.fmean(getattr(a, metric) for a in mine if a.seed == seed) for seed in seeds],
        interval,
    )


def shift_tables(content: Report) -> list[ShiftTable]:
    """The corruptions by severity, with means over rows and columns, then the other shifted sets."""

    def measured(found: Sequence[ShiftRow]) -> dict[str, Measure]:
        # Corruptions share their images: their intervals say nothing about that of a mean, and would fill the table.
        interval = None if found[0].severity else found[0].interval
        return {name: shifted(found, name, "accuracy", interval) for name in content.classifiers}

    tables = []
    for part in ([a for a in content.shifts if a.severity], [a for a in content.shifts if not a.severity]):
        columns: dict[str, set[int]] = {
            f"severity {s}" if s else "accuracy": {s} for s in sorted({a.severity for a in part})
        }
        rows = {a.dataset: {a.dataset} for a in part}
        if any(a.severity for a in part):
            columns, rows = {"mean": set.union(*columns.values())} | columns, rows | {"mean": set(rows)}
        cells = {
            name: {
                c: measured([a for a in part if a.dataset in sets and a.severity in s])
                for c, s in columns.items()
            }
            for name, sets in rows.items()
        }
        if part:
            tables.append(ShiftTable(cells=cells, n={a.dataset: a.n for a in part}))
    return tables


def headline(content: Report, lines: Sequence[Line], shifts: Sequence[ShiftTable]) -> tuple[str, str]:
    """The result in one plain sentence, and one about how sure it is."""
    baseline = next(iter(content.classifiers))
    if content.kind == "inlier" and shifts and (mean := shifts[0].cells.get("mean")):
        base, final = mean["mean"][baseline], mean["mean"][list(content.classifiers)[-1]]
        clean = _mean_cells(content, lines, "all", "accuracy")
        text = (
            f"Names {final.text}\u00a0% of corrupted images rightly, where {baseline} does {base.text}\u00a0%"
        )
        text += f"; of undisturbed ones {clean[-1].text}\u00a0% vs {clean[0].text}\u00a0%." if clean else "."
        return text, how_sure(base, final)
    accepted = _mean_cells(content, lines, "all", "fpr95_id")
    accuracy = _mean_cells(content, lines, "all", "accuracy")
    if lines and not accepted:
        return f"No mean over all unknown images was measured with the {content.detector} score.", ""
    if not accepted:
        return (
            "No unknown images were given, so nothing is known yet about how well this classifier refuses them.",
            "",
        )
    base, final = accepted[0], accepted[-1]
    condition = "while still accepting 95\u00a0% of known ones"
    if len(accepted) == 1:
        text = (
            f"Accepts {final.text}\u00a0% of unknown images {condition}; accuracy {accuracy[-1].text}\u00a0%"
        )
        return text + ".", f"Interval {final.spread}." if final.spread else ""
    comparison = "instead of" if final.value < base.value else f"where {baseline} accepts"
    text = (
        f"Accepts {final.text}\u00a0% of unknown images {comparison} {base.text}\u00a0% {condition}; "
        f"accuracy {accuracy[-1].text}\u00a0% vs {accuracy[0].text}\u00a0%."
    )
    return text, how_sure(base, final)


def how_sure(base: Measure, final: Measure) -> str:
    """Both values with their intervals, and whether these overlap; empty where there are none."""
    if not (base.spread and final.spread):
        return ""
    sure = (
        "The intervals overlap: this difference may be chance."
        if final.high >= base.low and base.high >= final.low
        else ""
    )
    return f"{final.text} ({final.spread}) against {base.text} ({base.spread}). {sure}".strip()


def key_figures(content: Report, lines: Sequence[Line]) -> list[tuple[str, list[Measure]]]:
    """What the figures are called, and the baseline's and the final classifier's value."""
    wanted = {
        "unknown images accepted": ("all", "fpr95_id"),
        "near-unknown images accepted": ("near", "fpr95_id"),
        "AUROC, all sets": ("all", "auroc"),
        "accuracy on known images": ("all", "accuracy"),
    }
    return [
        (label, cells) for label, where in wanted.items() if (cells := _mean_cells(content, lines, *where))
    ]
