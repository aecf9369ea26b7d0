"""The results of a benchmark as Markdown: one table for AUROC and one for either FPR95."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.results import Row
from .protocol import Protocol

__all__ = ["tables"]

TABLES = {
    "auroc": "AUROC, %",
    "fpr95_id": "fpr95_id, %: unknown images accepted where 95 % of the known ones are",
    "fpr95_ood": "fpr95_ood, %: known images flagged where 95 % of the unknown ones are",
}
WRONG_ANSWERS = ("misclassification_auroc", "aurc", "augrc")  # how scores tell wrong answers from right ones
Column = tuple[str, str]  # a set's name, or "mean", and its group


def tables(
    protocol: Protocol, rows: Sequence[Row], notes: Sequence[str], full_spectrum: Sequence[Row] = ()
) -> str:
    """The rows as Markdown, with the accuracy, the `notes` and the protocol's own notes.

    The detector with the best near mean comes first; far means decide where there is no near set. Of the rows
    of the `full_spectrum` there are the means.
    """
    row = rows[0]
    accuracy = _cell(row.accuracy, row.intervals.get("accuracy"))
    lines = [
        f"# {protocol.name}: {row.classifier}",
        "",
        f"{protocol.about}. Accuracy {accuracy} % on {row.n_id:,} images.",
        "",
    ]
    lines += [f"**{note}**\n" for note in notes]
    lines += _all_metrics(protocol, rows, "")
    if full_spectrum:
        row = full_spectrum[0]
        accuracy = _cell(row.accuracy, row.intervals.get("accuracy"))
        lines += [
            "# Full spectrum",
            "",
            f"Known images that look otherwise count as known, too. Accuracy {accuracy} % on {row.n_id:,} "
            "images.",
            "",
        ]
        means = [row for row in full_spectrum if row.dataset == "mean"]
        lines += _all_metrics(protocol, means, "Full spectrum, ")
    lines += [f"- {note}" for note in protocol.notes]
    return "\n".join(
        [*lines, "- Intervals are 95 %: they tell how well these images measure this one network.", ""]
    )


def _all_metrics(protocol: Protocol, rows: Sequence[Row], prefix: str) -> list[str]:
    """A table for every metric, its title behind `prefix`."""
    by_detector: dict[str, dict[Column, Row]] = {row.detector: {} for row in rows}
    for row in rows:
        by_detector[row.detector][row.dataset, row.group] = row
    columns = list(dict.fromkeys((row.dataset, row.group) for row in rows if row.group != "all"))
    columns.sort(key=lambda column: column[0] != "mean")
    by_detector = dict(sorted(by_detector.items(), key=lambda item: -item[1][columns[0]].auroc))
    lines = []
    for metric, title in TABLES.items():
        mark = " (the FPR95 of the protocol's publications)" if metric == protocol.fpr95 else ""
        lines += [f"## {prefix}{title}{mark}", "", *_table(metric, columns, by_detector), ""]
    return lines


def _table(
    metric: str, columns: Sequence[Column], by_detector: Mapping[str, Mapping[Column, Row]]
) -> list[str]:
    """One table's lines: a row for each detector, a column for each set and mean."""
    heads = ["detector"]
    heads += [f"{group} mean" if dataset == "mean" else f"{dataset} ({group})" for dataset, group in columns]
    first = next(iter(by_detector.values()))[columns[0]]
    errors = WRONG_ANSWERS if metric == "auroc" and first.misclassification_auroc is not None else ()
    heads += errors
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, by_column in by_detector.items():
        rows = [by_column[column] for column in columns]
        cells = [_cell(getattr(row, metric), row.intervals.get(metric)) for row in rows]
        cells += [_cell(getattr(rows[0], error), None) for error in errors]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def _cell(value: float, interval: tuple[float, float] | None) -> str:
    """A share in percent, with its interval."""
    ends = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * value:.1f}{ends}"
