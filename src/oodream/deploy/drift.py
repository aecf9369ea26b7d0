"""Whether a stream of scores still looks like the held-out ones behind a threshold: scores in, numbers and
words out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from scipy.stats import binom, kstwobign
from torch import Tensor

from ..functional.metrics import wilson
from ..runtime.answers import Guarantee

__all__ = ["KEPT", "Drift", "Stretch", "representatives"]

KEPT = 512  # held-out scores that stand for all
CLEAR = 0.01  # a p-value below this is put into words


def representatives(score_N: Tensor) -> Tensor:
    """At most KEPT of the scores that stand for all, ascending, float64: the middle ones of as many equal
    parts.

    Their distribution function is nowhere further than 1 / (2 KEPT) from that of all.
    """
    ordered_N, n = score_N.double().sort().values, len(score_N)
    if n <= KEPT:
        return ordered_N
    return ordered_N[((torch.arange(KEPT, dtype=torch.float64) + 0.5) * n / KEPT).long()]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What `n` scores of a stream say beside the held-out ones.

    The share `share` of them is `flagged`, with its 95 % interval (Wilson 1927). `p_more` is the chance of as
    many flagged scores or more if their rate were the guaranteed one (binomial). `distance` is that of
    Kolmogorov and Smirnov between the scores' distribution and the held-out one, in [0, 1], and `p_moved` the
    chance of a greater one by luck (Smirnov's limit; too large where scores tie). Both are for one look:
    whoever looks every hour sees 1 % every few days.
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
    last `window`; printed, it says both in words.

    It keeps counts and the window's scores, so memory does not grow with the stream. `score_Q` are the
    held-out scores' `representatives`.
    """

    threshold: float
    guarantee: Guarantee
    score_Q: Tensor
    window: int = 1000
    _count_K: Tensor = field(init=False, repr=False)
    _flagged: int = field(default=0, init=False, repr=False)
    _last_W: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.float64), init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is at least one score, not {self.window}.")
        self._count_K = self._counts(self._last_W)

    def add(self, score_N: Tensor) -> Drift:
        """Takes in the next scores (N,); ValueError for another shape, NaN or infinity."""
        score_N = torch.as_tensor(score_N, dtype=torch.float64)
        if score_N.ndim != 1 or not score_N.isfinite().all():
            raise ValueError("A stream's scores are finite numbers (N,).")
        self._count_K += self._counts(score_N)
        self._flagged += int((score_N > self.threshold).sum())
        self._last_W = torch.cat([self._last_W, score_N])[-self.window :].clone()  # not a view of all
        return self

    @property
    def total(self) -> Stretch | None:
        """Of all scores; None before the first."""
        return self._stretch(self._count_K, self._flagged)

    @property
    def latest(self) -> Stretch | None:
        """Of the last `window` scores; None before the first."""
        return self._stretch(self._counts(self._last_W), int((self._last_W > self.threshold).sum()))

    def __str__(self) -> str:
        if self.total is None:
            return f"No scores yet. Guaranteed: {self.guarantee}."
        return f"Guaranteed: {self.guarantee}.\nAll:    {self.total}.\nLatest: {self.latest}."

    def _counts(self, score_N: Tensor) -> Tensor:
        """How many scores lie below the first representative, on it, between it and the next, …, above the
        last.

        The distance needs no more than that.
        """
        levels_K = self.score_Q.unique()
        at_N = torch.searchsorted(levels_K, score_N) + torch.searchsorted(levels_K, score_N, right=True)
        return at_N.bincount(minlength=2 * len(levels_K) + 1)

    def _stretch(self, count_K: Tensor, flagged: int) -> Stretch | None:
        if not (n := int(count_K.sum())):
            return None
        held_out = self._counts(self.score_Q).cumsum(0).double() / len(self.score_Q)
        distance = float((count_K.cumsum(0).double() / n - held_out).abs().max())
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
