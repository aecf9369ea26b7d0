"""What arms beside each other are, and how they differ: differences over seeds, and the oracle's share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..functional.uncertainty import Difference, GainShare, gain_share, paired
from ..training.sources import Kind
from .tables import Cell

__all__ = ["METRICS", "SHARED", "UNDER_SHIFT", "Arm", "Contrast", "contrasts", "metrics_for"]

UNDER_SHIFT = "shifted accuracy"
METRICS = {
    "near auroc": "near AUROC",
    "near fpr95_id": "near fpr95_id",
    "all fpr95_id": "fpr95_id of all sets",
    "accuracy": "accuracy",
    UNDER_SHIFT: "accuracy under shift",
}
"""What differences are taken of, and what it is called: first what outliers are for, last what inliers."""
SHARED = ("near auroc", "near fpr95_id")
"""What the oracle's share is taken of."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm: how many outliers or inliers (its `kind`) it was trained with, what was measured, and what it
    cost.

    `cells` are percent by name, with their spread; `by_seed` are the numbers behind some of them, one for
    each seed. The `detector` gives the scores. An `oracle` is trained with real images of other things.
    `train` are the options of its section, as JSON. The seconds are of decoding these images and of one
    training. `memory` is the most bytes that decoding or training held. It was measured on so many
    `known` images and on `sets` of unknown ones, images by set's name by group; `unknown` are the names of
    unknown classes, as far as they have some. `problems` are what its audit says of what makes the numbers
    wrong, and `warned` what its run warns of besides.
    """

    arm: str
    kind: Kind
    count: int
    detector: str = ""
    oracle: bool = False
    train: Mapping[str, Any]
    cells: Mapping[str, Cell]
    by_seed: Mapping[str, tuple[float, ...]]
    synthesis: float
    training: float
    memory: int
    known: int = 0
    sets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unknown: Sequence[str] = ()
    problems: Sequence[str] = ()
    warned: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An arm beside others by one metric: its difference to the baseline and to the first arm, in points, and
    its share of the oracle's gain.

    None stands where the other one is the arm itself, or is missing, or has other seeds.
    """

    arm: str
    to_baseline: Difference | None
    to_first: Difference | None
    share: GainShare | None


def contrasts(arms: Sequence[Arm]) -> dict[str, list[Contrast]]:
    """The contrasts of all arms behind the first of `arms`, which is the baseline, by metric.

    What the first arm is for comes first. A metric that the baseline has no two seeds of is left out. The
    oracle is the first arm that is one.
    """
    baseline, *others = arms
    oracle = next((arm for arm in others if arm.oracle), None)
    return {
        metric: [_contrast(arm, baseline, others[0], oracle, metric) for arm in others]
        for metric in metrics_for(others[0].kind)
        if len(baseline.by_seed.get(metric, ())) > 1
    }


def metrics_for(kind: Kind) -> list[str]:
    """The `METRICS`, first what outliers, or inliers, are for."""
    return list(METRICS if kind == "outlier" else reversed(METRICS))


def _contrast(arm: Arm, baseline: Arm, first: Arm, oracle: Arm | None, metric: str) -> Contrast:
    def comparable(*others: Arm | None) -> bool:
        """Whether the arm and all others have as many seeds, and more than one."""
        counts = {len(one.by_seed.get(metric, ())) if one else 0 for one in (arm, *others)}
        return len(counts) == 1 and min(counts) > 1

    def less(other: Arm) -> Difference | None:
        other_is_another = arm is not other and comparable(other)
        return paired(other.by_seed[metric], arm.by_seed[metric]) if other_is_another else None

    share = None
    if metric in SHARED and oracle and arm is not oracle and comparable(baseline, oracle):
        sign = 1 if metric.endswith("auroc") else -1  # of a gain
        base, own, best = ([sign * x for x in one.by_seed[metric]] for one in (baseline, arm, oracle))
        share = gain_share(base, own, best)
    return Contrast(arm=arm.arm, to_baseline=less(baseline), to_first=less(first), share=share)
