"""Runs beside each other: the arms that they are, their mean ROC curves, and whether they can be compared.

Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..core.errors import StoreError
from ..core.types import Json
from ..functional.metrics import mean_roc
from ..report.contrasts import UNDER_SHIFT, Arm
from ..run.artifacts import Run
from ..run.disagree import Measured, measured_sets
from ..run.layout import BASELINE, KINDS, REGULARIZED, classifier_stage

__all__ = ["FPR", "UNREADABLE", "Beside", "Curve", "Facts", "beside", "facts"]

FPR = (0.01, 0.05, 0.1, 0.2, 0.5)  # rates of false alarms that a curve's table has
UNREADABLE = (ValueError, RuntimeError, OSError)  # what a run raises that is left out
GROUPS = ("near", "far")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """An arm's mean ROC curve over the sets of a group and over seeds, with its area."""

    arm: str
    fpr: Sequence[float]
    tpr: Sequence[float]
    auroc: float

    def at(self, fpr: float) -> float:
        """The share of unknown pictures that is flagged at this rate of false alarms."""
        return float(np.interp(fpr, self.fpr, self.tpr))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run has measured: arms and curves by kind of classifier, the pictures that it was measured on
    (what the `shifted` ones are made from apart from the others), and what its baselines were made from.
    """

    arms: Mapping[str, Arm]
    curves: Mapping[str, Mapping[str, Curve]]
    pictures: Mapping[str, Measured]
    shifted: Json
    baselines: Sequence[Json]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Arms, the first of which is the baseline, and their curves by group, near before far.

    `problems` says why runs are left out, and `same` whether all arms were measured on the same pictures:
    where they were not, differences between them mean nothing. Where only the shifted pictures were others,
    no arm has its accuracy on them by seed, so that none is subtracted.
    """

    arms: Sequence[Arm]
    curves: Mapping[str, Sequence[Curve]]
    problems: Mapping[str, str]
    same: bool


def beside(runs: Mapping[str, Callable[[], Facts]]) -> Beside:
    """Runs by name beside each other: the first one's baseline, the regularized classifiers of all, and
    baselines that were trained otherwise than the first. A run whose facts cannot be had is left out.
    """
    problems, every = {}, {}
    for name, read in runs.items():
        try:
            every[name] = read()
        except UNREADABLE as error:
            problems[name] = str(error)
    shown: list[tuple[str, str, Facts]] = [(name, REGULARIZED, one) for name, one in every.items()]
    trained: list[Sequence[Json]] = []
    for name, one in every.items():
        if one.baselines not in trained:
            first = not trained
            trained.append(one.baselines)
            place = 0 if first else len(shown)
            shown.insert(place, (BASELINE if first else f"{BASELINE} of {name}", BASELINE, one))
    curves: dict[str, list[Curve]] = {}
    for group in GROUPS:
        for called, kind, one in shown:
            if curve := one.curves[kind].get(group):
                curves.setdefault(group, []).append(replace(curve, arm=called))
    pictures, shifted = [one.pictures for one in every.values()], [one.shifted for one in every.values()]
    apart = {UNDER_SHIFT} if any(one != shifted[0] for one in shifted) else set()
    arms = [(called, one.arms[kind]) for called, kind, one in shown]
    return Beside(
        arms=[
            replace(arm, arm=called, by_seed={m: n for m, n in arm.by_seed.items() if m not in apart})
            for called, arm in arms
        ],
        curves=curves,
        problems=problems,
        same=all(one == pictures[0] for one in pictures),
    )


def facts(run: Run) -> Facts:
    """What a run has measured. Raises StoreError where it has not measured all of it."""
    from ..run.compare import measured_arm  # with the audit's libraries, which take seconds

    pictures, detector = measured_sets(run), run.config.evaluate.detectors[0]
    for kind in KINDS:
        rows = [row for row in run.rows() if (row.classifier, row.detector) == (kind, detector)]
        if not any(row.group == "all" for row in rows):
            raise StoreError(f"{run.folder.path} has no means of the detector {detector} to compare.")
    stamps = [run.stamp(classifier_stage(BASELINE, seed)) for seed in range(run.config.seeds)]
    shift = run.stamp("shift")
    drawn = {kind: {group: _curve(run, kind, group, pictures) for group in GROUPS} for kind in KINDS}
    return Facts(
        arms={kind: measured_arm(kind, run, kind) for kind in KINDS},
        curves={kind: {k: curve for k, curve in part.items() if curve} for kind, part in drawn.items()},
        pictures=pictures,
        shifted={key: value for key, value in shift["inputs"].items() if key != "after"} if shift else {},
        baselines=[stamp["inputs"] for stamp in stamps if stamp],
    )


def _curve(run: Run, kind: str, group: str, pictures: Mapping[str, Measured]) -> Curve | None:
    names = [name for name, measured in pictures.items() if measured.group == group]
    pairs = []
    for seed in range(run.config.seeds):
        scores = run.scores(kind, seed)
        pairs += [(scores["id"], scores[name]) for name in names if name in scores]
    if not pairs:
        return None
    fpr_P, tpr_P = mean_roc(pairs)
    area = torch.trapezoid(tpr_P, fpr_P).item()
    return Curve(arm=kind, fpr=fpr_P.tolist(), tpr=tpr_P.tolist(), auroc=area)
