"""Whether a stream of scores still looks like the held-out ones behind a threshold: scores in, numbers and
words out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from scipy.stats import binom, kstwobign
from torch import Tensor

from ..functional.calibration import Guarantee
from ..functional.martingale import Martingale
from ..functional.metrics import wilson

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
    score_N: Tensor
    window: int = 1000
    _level_K: Tensor = field(init=False, repr=False)
    _held_out_L: Tensor = field(init=False, repr=False)
    _count_L: Tensor = field(init=False, repr=False)
    _flagged: int = field(default=0, init=False, repr=False)
    _last_W: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.float64), init=False, repr=False
    )
    _martingale: Martingale = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is at least one score, not {self.window}.")
        self._level_K = self.score_N.unique()
        self._held_out_L = self._counts(self.score_N).cumsum(0).double() / len(self.score_N)
        self._count_L = self._counts(self._last_W)
        self._martingale = Martingale(score_N=self.score_N.numpy())

    def add(self, score_M: Tensor) -> Drift:
        """Takes in the next scores (M,) in their order; ValueError for another shape, NaN or infinity."""
        score_M = torch.as_tensor(score_M, dtype=torch.float64)
        if score_M.ndim != 1 or not score_M.isfinite().all():
            raise ValueError("A stream's scores are finite numbers (N,).")
        self._count_L += self._counts(score_M)
        self._flagged += int((score_M > self.threshold).sum())
        self._last_W = torch.cat([self._last_W, score_M])[-self.window :].clone()  # not a view of all
        self._martingale.add(score_M.numpy())
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
        looks (see `functional.martingale`). It never falls: after a drift begin a new summary.
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

    def _counts(self, score_M: Tensor) -> Tensor:
        """How many scores lie below the first held-out level, on it, between it and the next, …, above the
        last.

        The distance needs no more than that.
        """
        level_K = self._level_K
        at_M = torch.searchsorted(level_K, score_M) + torch.searchsorted(level_K, score_M, right=True)
        return at_M.bincount(minlength=2 * len(level_K) + 1)

    def _stretch(self, count_L: Tensor, flagged: int) -> Stretch | None:
        if not (n := int(count_L.sum())):
            return None
        distance = float((count_L.cumsum(0).double() / n - self._held_out_L).abs().max())
        effective = n * self.guarantee.n / (n + self.guarantee.n)
        return Stretch(
            n=n,
            flagged=flagged,
            share=flagged / n,
            interval=wilson(flagged, n),
            p_more=float(binom.sf(flagged - 1, n, self.guarantee.alpha)),
            distance=distance,
            p_moved=float(kstwobign.sf(math.sqrt(effective) * distance)),
        )
