"""What moving a guard's threshold costs and gains: the false alarms promised at each alpha, beside the share
of known and unknown images that would be accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.answering import Answering
from ..runtime.calibration import least_alpha
from ..runtime.tails import Floats

__all__ = ["Accepted", "Scored", "Tradeoff", "alphas", "tradeoff"]

STEPS = (
    *(m * 10**-power for power in (5, 4) for m in (1, 2, 5)),
    *(i / 1000 for i in range(1, 10)),
    *(i / 200 for i in range(2, 20)),
    *(i / 100 for i in range(10, 51)),
)
"""Rates that people choose from: finer where they are small."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Images with their scores (N,), and the classes (N,) that the network takes them for, which only a guard
    with a threshold for each class needs.
    """

    score_N: Floats
    likeliest_N: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """How many of n images are accepted."""

    accepted: int
    n: int

    @property
    def share(self) -> float:
        return self.accepted / self.n if self.n else float("nan")


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """A guard at one alpha: what it promises, its thresholds, and what it accepts.

    `threshold_C` are the thresholds of the classes; those without one of their own have `threshold`.
    `known` counts the held-out known images, and is no estimate of its own: the threshold was chosen on them.
    """

    alpha: float
    guarantee: str
    threshold: float
    threshold_C: Floats
    known: Accepted
    unknown: Mapping[str, Accepted]


def alphas(guard: Answering) -> list[float]:
    """The rates that a guard can be asked for, ascending: round ones, the least that its held-out images can
    guarantee, and its own.
    """
    promise = guard.guarantee
    least = least_alpha(promise.n, promise.confidence)
    rates = {round(step, 6) for step in STEPS if step >= least} | {least, promise.alpha}
    return sorted(rate for rate in rates if 0 < rate < 1)


def tradeoff(guard: Answering, alpha: float, unknown: Mapping[str, Scored]) -> Tradeoff:
    """The guard at this alpha, and what it accepts of each unknown set.

    Raises ValueError where the held-out images are too few to guarantee alpha, and where a guard with a
    threshold for each class is given scores without classes.
    """
    moved = guard.at(alpha)
    held_out = Scored(score_N=moved.held_out.score_N, likeliest_N=moved.held_out.likeliest_N)
    return Tradeoff(
        alpha=alpha,
        guarantee=str(moved.guarantee),
        threshold=moved.threshold,
        threshold_C=moved.threshold_C,
        known=_accepted(moved, held_out),
        unknown={name: _accepted(moved, scored) for name, scored in unknown.items()},
    )


def _accepted(guard: Answering, scored: Scored) -> Accepted:
    threshold: float | Floats = guard.threshold
    if guard.per_class:
        if scored.likeliest_N is None:
            raise ValueError("This guard has a threshold for each class, so scores must come with classes.")
        threshold = guard.threshold_C[scored.likeliest_N]
    accepted_N = scored.score_N <= threshold
    return Accepted(accepted=int(accepted_N.sum()), n=len(accepted_N))
