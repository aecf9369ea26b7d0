"""What makes a run's numbers doubtful, in few words: problems of its audit, accuracy at chance, detectors
that rank upside down. The end of a run, its report, comparisons and the studio say the same.
"""

from __future__ import annotations

from ..report.remarks import of_run
from .artifacts import Run
from .layout import KINDS

__all__ = ["doubts", "problems", "remarks"]


def remarks(run: Run, detector: str) -> list[str]:
    """All that is doubtful of a run whose numbers are of this detector, in a sentence each."""
    return of_run(problems(run), {kind: doubts(run, kind, detector) for kind in KINDS})


def problems(run: Run) -> tuple[str, ...]:
    """What a run's audit calls problems, with the sets concerned, in a text each."""
    return tuple(f"{finding.brief}." for finding in run.audit()["problem"])


def doubts(run: Run, kind: str, detector: str) -> tuple[str, ...]:
    """What is doubtful of a run's classifiers of a kind and of a detector's scores of theirs, in a text each.

    A text names what it is of a part of the seeds.
    """
    # It imports SciPy, which a run that is refused should not wait for.
    from ..deploy.accuracy import Accuracy

    names, accuracy = run.book.names, {row.seed: row for row in run.rows() if row.classifier == kind}
    guessed = [
        seed
        for seed, row in accuracy.items()
        if Accuracy(hits=round(row.accuracy * row.n_id), n=row.n_id, classes=len(names)).at_chance
    ]
    measured = (run.stamp("scores") or {"summary": {}})["summary"]
    wrong = [
        seed for seed in accuracy if detector in measured.get(f"{kind}-s{seed}", {}).get("upside_down", {})
    ]
    said = {
        f"the accuracy is no better than guessing among {len(names)} classes": guessed,
        f"{detector} ranks upside down: known images made unrecognizable look better known to it than the "
        "known images themselves": wrong,
    }
    return tuple(f"{text}{_some(len(seeds), len(accuracy))}." for text, seeds in said.items() if seeds)


def _some(n: int, total: int) -> str:
    """How many of the seeds are concerned, where not all are."""
    return f" (in {n} of {total} trainings)" if n < total else ""
