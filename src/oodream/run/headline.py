"""What a finished run says in a few lines, the harm included."""

from __future__ import annotations

from ..core.results import CORRUPTED
from ..report.tables import Cell, overlap, shift_groups, summarize, summarize_shifts
from .artifacts import Run
from .doubts import remarks
from .layout import BASELINE, REGULARIZED

__all__ = ["headline", "headline_detector"]


def headline(run: Run) -> str:
    """The run in a few lines: what makes its numbers doubtful (`doubts.remarks`), each shifted folder and the
    mean over corruptions, both flagged by the energy, and means over all OOD sets and seeds by the headline's
    detector.
    """
    detector, rows, shift_rows = headline_detector(run), run.rows(), run.shift_rows()

    def means(metric: str, group: str = "all") -> tuple[Cell, Cell]:
        final, base = (
            summarize([r for r in rows if (r.classifier, r.group, r.dataset, r.detector) == key], metric)
            for key in ((kind, group, "mean", detector) for kind in (REGULARIZED, BASELINE))
        )
        return final, base

    lines = remarks(run, detector)
    for name, group in shift_groups(shift_rows).items():
        accuracy, flagged = (
            [summarize_shifts(group, kind, metric).text for kind in (REGULARIZED, BASELINE)]
            for metric in ("accuracy", "flagged")
        )
        sets = {(row.dataset, row.severity) for row in group}
        where = f"corrupted test images (mean of {len(sets)} sets)" if name == CORRUPTED else name
        lines.append(
            f"On {where}: accuracy {accuracy[0]} % (baseline: {accuracy[1]} %), flagged by the energy "
            f"{flagged[0]} % ({flagged[1]} %)."
        )
    fpr, auroc, right = (means(metric) for metric in ("fpr95_id", "auroc", "accuracy"))
    lines += [
        f"Unknown images accepted while 95 % of known ones are: {fpr[0].text} % (baseline: {fpr[1].text} %).",
        f"AUROC {auroc[0].text} % ({auroc[1].text} %). Accuracy {right[0].text} % ({right[1].text} %).",
    ]
    if any(row.group == "near" for row in rows):
        fpr, auroc = means("fpr95_id", "near"), means("auroc", "near")
        lines.append(
            f"Near-unknown images: accepted {fpr[0].text} % ({fpr[1].text} %), "
            f"AUROC {auroc[0].text} % ({auroc[1].text} %)."
        )
        if auroc[0].value < auroc[1].value:
            chance = overlap(auroc[1], auroc[0])
            more = ": the ranges overlap, and this may be chance." if chance else f".{advice(run)}"
            lines.append(f"They are told apart worse than by the baseline{more}")
    return "\n".join(lines)


def advice(run: Run) -> str:
    """What may help where imagined outliers have made near-OOD worse."""
    if run.kind != "outlier" or not run.imagines:
        return ""
    return (
        " What was imagined is not what these images show: try --regularize.outliers known, or a decoder "
        "that knows such images (--decode.source), each in a folder of its own (--run FOLDER)."
    )


def headline_detector(run: Run) -> str:
    """The first of the configured detectors that was measured; one that could not be fitted was left out."""
    measured = {row.detector for row in run.rows()}
    return next(name for name in run.config.evaluate.detectors if name in measured)
