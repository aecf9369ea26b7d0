"""Whether a stream of scores still looks like the held-out ones behind a threshold: scores in, numbers and
words out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import Guarantee
from .martingale import Martingale
from .tails import Floats, binomial_tail, kolmogorov_tail, wilson

__all__ = ["Drift", "Stretch"]

CLEAR = 0.01  # a p-value below this is put into words


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What `n` scores of a stream say beside the held-out ones.

    The share `share` of them is `flagged`, with its 95 % interval (Wilson 1927). `p_more` is the chance of as
    many flagged scores or more if their rate were the guaranteed one (binomial). `distance` is that of
    Kolmogorov and Smirnov between the scores' distribution and the held-out one, in [0, 1], and `p_moved` the
    chance of a greater one by luck (Smirnov's limit; too large where scores tie). Both are for one look:
    whoever looks every hour sees 1 % every few days, and takes `Drift.evidence`.
    """

    n: int
    flagged: int
    share: float
    interval: tuple[float, float]
    p_more: float
    distance: float
    p_moved: float

    def __str__(self) -> str:
        low, high = self.interval
        rate = "more than guaranteed" if self.p_more < CLEAR else "no more than guaranteed"
        scores = "the scores have moved" if self.p_moved < CLEAR else "the scores have not moved"
        return (
            f"{self.n:,} scores, {self.share:.1%} flagged ({low:.1%} to {high:.1%}): {rate} "
            f"(p = {self.p_more:.2g}); {scores} (distance {self.distance:.3f}, p = {self.p_moved:.2g})"
        )


@dataclass(kw_only=True)
class Drift:
    """A summary of a stream of scores, which grows by `add`. `total` tells of all scores, `latest` of the
    last `window`, and `evidence` whether they have drifted at all; printed, it says all three in words.

    It keeps counts and the window's scores, so memory does not grow with the stream. `score_N` are the
    held-out scores. Scores above `threshold` count as flagged, of whatever class; for a guard with a
    threshold for each class it is the common one.
    """

    threshold: float
    guarantee: Guarantee
    score_N: Floats
    window: int = 1000
    _level_K: Floats = field(init=False, repr=False)
    _held_out_L: Floats = field(init=False, repr=False)
    _count_L: NDArray[np.int64] = field(init=False, repr=False)
    _flagged: int = field(default=0, init=False, repr=False)
    _last_W: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)
    _martingale: Martingale = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is at least one score, not {self.window}.")
        self.score_N = np.asarray(self.score_N, dtype=np.float64)
        self._level_K = np.unique(self.score_N)
        self._held_out_L = self._counts(self.score_N).cumsum() / len(self.score_N)
        self._count_L = self._counts(self._last_W)
        self._martingale = Martingale(score_N=self.score_N)

    def add(self, score_M: ArrayLike) -> Drift:
        """Takes in the next scores (M,) in their order; ValueError for another shape, NaN or infinity."""
        score_M = np.asarray(score_M, dtype=np.float64)
        if score_M.ndim != 1 or not np.isfinite(score_M).all():
            raise ValueError("A stream's scores are finite numbers (N,).")
        self._count_L += self._counts(score_M)
        self._flagged += int((score_M > self.threshold).sum())
        self._last_W = np.concatenate([self._last_W, score_M])[-self.window :].copy()  # not a view of all
        self._martingale.add(score_M)
        return self

    @property
    def total(self) -> Stretch | None:
        """Of all scores; None before the first."""
        return self._stretch(self._count_L, self._flagged)

    @property
    def latest(self) -> Stretch | None:
        """Of the last `window` scores; None before the first."""
        return self._stretch(self._counts(self._last_W), int((self._last_W > self.threshold).sum()))

    @property
    def evidence(self) -> float:
        """The evidence of a drift up to now: log10 of the most that a bettor's wealth has been.

        Without drift the chance that it ever reaches e is at most 10 ** -e, however often and whenever one
        looks (see `martingale`). It never falls: after a drift begin a new summary.
        """
        return self._martingale.log10_highest

    def __str__(self) -> str:
        if self.total is None:
            return f"No scores yet. Guaranteed: {self.guarantee}."
        chance = min(1.0, 10**-self.evidence)
        return (
            f"Guaranteed: {self.guarantee}.\nAll:    {self.total}.\nLatest: {self.latest}.\n"
            f"Ever:   {'a drift' if chance < CLEAR else 'no clear drift'} (evidence {self.evidence:.1f}: so "
            f"much ever appears without drift with a chance of at most {chance:.2g})."
        )

    def _counts(self, score_M: Floats) -> NDArray[np.int64]:
        """How many scores lie below the first held-out level, on it, between it and the next, …, above the
        last.

        The distance needs no more than that.
        """
        level_K = self._level_K
        at_M = np.searchsorted(level_K, score_M) + np.searchsorted(level_K, score_M, side="right")
        return np.bincount(at_M, minlength=2 * len(level_K) + 1)

    def _stretch(self, count_L: NDArray[np.int64], flagged: int) -> Stretch | None:
        if not (n := int(count_L.sum())):
            return None
        distance = float(np.abs(count_L.cumsum() / n - self._held_out_L).max())
        effective = n * self.guarantee.n / (n + self.guarantee.n)
        return Stretch(
            n=n,
            flagged=flagged,
            share=flagged / n,
            interval=wilson(flagged, n),
            p_more=binomial_tail(flagged, n, self.guarantee.alpha),
            distance=distance,
            p_moved=kolmogorov_tail(math.sqrt(effective) * distance),
        )
