"""Runs beside each other: the arms that they are, their mean ROC curves, and whether they can be compared.

Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..core.errors import StoreError
from ..functional.metrics import mean_roc
from ..report.comparison import Arm
from ..run.artifacts import Run
from ..run.disagree import measured_sets
from ..run.layout import BASELINE, REGULARIZED, classifier_stage

__all__ = ["FPR", "Beside", "Curve", "beside", "curves"]

FPR = (0.01, 0.05, 0.1, 0.2, 0.5)  # rates of false alarms that a curve's table has
GROUPS = ("near", "far")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Arms, the first of which is the baseline, each with the run and the kind of classifier that it is.

    `problems` says why runs are left out, and `same` whether all arms were measured on the same pictures:
    where they were not, differences between them mean nothing.
    """

    arms: Sequence[Arm]
    sources: Mapping[str, tuple[str, str]]
    problems: Mapping[str, str]
    same: bool


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


def beside(runs: Mapping[str, Run]) -> Beside:
    """The arms of runs by name: the first one's baseline, the regularized classifiers of all, and baselines
    that were trained otherwise than the first.
    """
    regularized: dict[str, Arm] = {}
    baselines: dict[str, Arm] = {}
    sources: dict[str, tuple[str, str]] = {}
    problems, trained, pictures = {}, [], []
    for name, run in runs.items():
        try:
            pictures.append(measured_sets(run))
            regularized[name] = _arm(name, run, REGULARIZED)
            made_from = [run.stamp(classifier_stage(BASELINE, seed)) for seed in range(run.config.seeds)]
            inputs = [stamp and stamp["inputs"] for stamp in made_from]
            if inputs not in trained:
                trained.append(inputs)
                called = BASELINE if len(trained) == 1 else f"{BASELINE} of {name}"
                baselines[called], sources[called] = _arm(called, run, BASELINE), (name, BASELINE)
            sources[name] = name, REGULARIZED
        except (ValueError, RuntimeError, OSError) as error:
            problems[name] = str(error)
            regularized.pop(name, None)
    first, *others = baselines.values() or [None]
    arms = [arm for arm in (first, *regularized.values(), *others) if arm is not None]
    same = all(one == pictures[0] for one in pictures)
    return Beside(arms=arms, sources=sources, problems=problems, same=same)


def curves(runs: Mapping[str, Run], table: Beside) -> dict[str, list[Curve]]:
    """The arms' mean ROC curves by group, near before far; of groups that no arm has there are none."""
    result: dict[str, list[Curve]] = {}
    for group in GROUPS:
        for arm in table.arms:
            name, kind = table.sources[arm.arm]
            if curve := _curve(arm.arm, runs[name], kind, group):
                result.setdefault(group, []).append(curve)
    return result


def _arm(name: str, run: Run, kind: str) -> Arm:
    from ..run.compare import measured_arm  # with the audit's libraries, which take seconds

    detector = run.config.evaluate.detectors[0]
    if not any((row.classifier, row.detector, row.group) == (kind, detector, "all") for row in run.rows()):
        raise StoreError(f"{run.folder.path} has no means of the detector {detector} to compare.")
    return measured_arm(name, run, kind)


def _curve(arm: str, run: Run, kind: str, group: str) -> Curve | None:
    names = [name for name, measured in measured_sets(run).items() if measured.group == group]
    pairs = []
    for seed in range(run.config.seeds):
        scores = run.scores(kind, seed)
        pairs += [(scores["id"], scores[name]) for name in names if name in scores]
    if not pairs:
        return None
    fpr_P, tpr_P = mean_roc(pairs)
    area = torch.trapezoid(tpr_P, fpr_P).item()
    return Curve(arm=arm, fpr=fpr_P.tolist(), tpr=tpr_P.tolist(), auroc=area)
