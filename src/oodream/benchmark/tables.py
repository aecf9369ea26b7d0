"""benchmark.tables."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.results import Row
from .protocol import Benchmark

TABLES = {
    "auroc": "AUROC, %",
    "fpr95_id": "fpr95_id, %: unknown images accepted where 95 % of the known ones are",
    "fpr95_ood": "fpr95_ood, %: known images flagged where 95 % of the unknown ones are",
}


def tables(benchmark: Benchmark, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The rows as Markdown: a table for AUROC and for either FPR95, detectors by their near mean (far, where nothing is near)."""
    by: dict[str, dict[tuple[str, str], Row]] = {row.detector: {} for row in rows}
    for row in rows:
        by[row.detector][row.dataset, row.group] = row
    columns = list(dict.fromkeys((row.dataset, row.group) for row in rows if row.group != "all"))
    columns.sort(key=lambda column: column[0] != "mean")
    names = sorted(by, key=lambda name: -by[name][columns[0]].auroc)
    row = rows[0]
    accuracy = _cell(row.accuracy, row.intervals.get("accuracy"))
    lines = [
        f"# {benchmark.name}: {row.classifier}",
        "",
        f"{benchmark.about}. Accuracy {accuracy} % on {row.n_id:,} images.",
        "",
    ]
    lines += [f"**{note}**\n" for note in notes]
    for metric, title in TABLES.items():
        mark = " (the FPR95 of the protocol's publications)" if metric == benchmark.fpr95 else ""
        heads = [
            "detector",
            *(f"{group} mean" if dataset == "mean" else f"{dataset} ({group})" for dataset, group in columns),
        ]
        errors = metric == "auroc" and row.misclassification_auroc is not None
        heads += ["misclassification_auroc"] if errors else []
        lines += [f"## {title}{mark}", "", f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
        for name in names:
            found = [by[name][column] for column in columns]
            cells = [_cell(getattr(row, metric), row.intervals.get(metric)) for row in found]
            cells += [_cell(found[0].misclassification_auroc or 0.0, None)] if errors else []
            lines.append(f"| {' | '.join([name, *cells])} |")
        lines.append("")
    lines += [f"- {note}" for note in benchmark.notes]
    return "\n".join(
        [*lines, "- Intervals are 95 %: they tell how well these images measure this one network.", ""]
    )


def _cell(value: float, interval: tuple[float, float] | None) -> str:
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
