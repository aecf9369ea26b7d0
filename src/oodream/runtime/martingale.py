"""Evidence that a stream of scores is not drawn as held-out ones were, which may be looked at at any time.

Somebody bets, before each score, on where it will lie among the held-out scores. The game is fair as long as
held-out and streamed scores are exchangeable, so the wealth W, 1 to begin with, is a test martingale: without
drift the chance that it ever reaches 1 / delta is at most delta (Ville 1939), however often one looks. With
drift there are bets that win (Vovk, Gammerman & Shafer 2005, chapter 7; Vovk et al. 2021, arXiv 2102.10439).

The odds are the online conformal ones. N held-out scores leave N + 1 gaps, and every score of the stream that
has come falls into one and splits it: the next lies in a gap that holds c of them with chance (1 + c) / (N +
1 + t) after t of them, exactly, whatever the scores' distribution. So the held-out set may be small: had the
stream not joined it, the bettor would learn its luck and grow rich on that. Ties are broken at random, by a
generator of the stream's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .tails import Floats

__all__ = ["Martingale", "bets", "grow", "stake"]

POWERS = (0.25, 0.5, 0.7, 0.9)
AT_ONCE = 512  # scores whose order among themselves is compared in one table


def bets(low_M: Floats, high_M: Floats) -> Floats:
    """What each bet multiplies its money by (M, E) where the p-value, uniform without drift, turns out to lie
    between `low_M` and `high_M`: the mean of the bet's density there.

    p is small for a high score. The densities are powers of p (higher scores; Vovk et al. 2003), the same of
    1 - p (lower ones), means of both (scores further out), and 6 p (1 - p), whole and mixed with even odds
    (scores nearer the middle).
    """
    return (_areas(high_M) - _areas(low_M)) / (high_M - low_M)[:, None]


def stake(t_M: Floats) -> Floats:
    """The share of the first money that is still to be staked after t scores, 1 / (1 + log(1 + t)).

    What goes is spread over all bets anew at every score: a drift may begin at any of them, and costs the
    logarithm of when it does. Stakes that were made stay on their bet.
    """
    return 1 / (1 + np.log1p(t_M))


def grow(log_E: Floats, factor_ME: Floats, t: int) -> tuple[Floats, Floats]:
    """The logarithms of the bets' money after M more scores (E,), and of the whole wealth after each (M,).

    `log_E` are these after t scores, -inf for none, and `factor_ME` what `bets` returns.
    """
    step_M = t + np.arange(len(factor_ME), dtype=np.float64)
    fresh_M1 = np.log((stake(step_M) - stake(step_M + 1)) / len(log_E))[:, None]
    growth_ME = np.cumsum(np.log(factor_ME), axis=0)
    before_ME = np.concatenate([np.zeros((1, len(log_E))), growth_ME[:-1]])
    paid_ME = np.logaddexp.accumulate(np.concatenate([log_E[None], fresh_M1 - before_ME]), axis=0)[1:]
    money_ME = paid_ME + growth_ME
    kept_M1 = np.log(stake(step_M + 1))[:, None]
    return money_ME[-1], np.logaddexp.reduce(np.concatenate([money_ME, kept_M1], axis=1), axis=1)


@dataclass(kw_only=True)
class Martingale:
    """The wealth of a bettor on a stream that begins at `score_N`'s end; it grows by `add`.

    `score_N` are the held-out scores, in any order. `log10_wealth` is now, `log10_highest` the most it has
    been. Memory does not grow with the stream.
    """

    score_N: Floats
    seed: int = 0
    n: int = field(default=0, init=False)
    log10_wealth: float = field(default=0.0, init=False)
    log10_highest: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._level_K, level_N = np.unique(self.score_N, return_inverse=True)
        self._key_N = np.sort(level_N + self._random.random(len(level_N)))
        self._share_G = np.ones(len(level_N) + 1, dtype=np.int64)  # of every gap, one more than it holds
        self._log_E = np.full(bets(np.zeros(1), np.ones(1)).shape[1], -np.inf)

    def add(self, score_M: Floats) -> Martingale:
        """Takes in the next scores (M,), finite, in the order in which they came."""
        for start in range(0, len(score_M), AT_ONCE):
            low_M, high_M = self._p_values(score_M[start : start + AT_ONCE])
            self._log_E, log_M = grow(self._log_E, bets(low_M, high_M), self.n)
            self.n += len(log_M)
            self.log10_wealth = float(log_M[-1]) / math.log(10)
            self.log10_highest = max(self.log10_highest, float(log_M.max()) / math.log(10))
        return self

    def _p_values(self, score_M: Floats) -> tuple[Floats, Floats]:
        """Between what p-values each score's lies; the scores join the others."""
        gap_M = self._gaps(score_M)
        earlier_MM = np.tri(len(gap_M), k=-1, dtype=bool)
        higher_M = ((gap_M > gap_M[:, None]) & earlier_MM).sum(1)
        same_M = ((gap_M == gap_M[:, None]) & earlier_MM).sum(1)
        above_G = self._share_G.sum() - np.cumsum(self._share_G)
        total_M = len(self._share_G) + self.n + np.arange(len(gap_M))
        low_M = (above_G[gap_M] + higher_M) / total_M
        high_M = (above_G[gap_M] + higher_M + self._share_G[gap_M] + same_M) / total_M
        self._share_G += np.bincount(gap_M, minlength=len(self._share_G))
        return low_M, high_M

    def _gaps(self, score_M: Floats) -> NDArray[np.int64]:
        """How many held-out scores lie below each; between equal ones lots, drawn once for each, decide.

        A held-out score's key is the number of lower levels and its lot, in [0, 1). One of the stream between
        two levels has no lot.
        """
        level_M = np.searchsorted(self._level_K, score_M)
        lot_M = self._random.random(len(score_M))
        tied_M = self._level_K[np.minimum(level_M, len(self._level_K) - 1)] == score_M
        return np.searchsorted(self._key_N, level_M + np.where(tied_M, lot_M, 0.0))


def _areas(p_M: Floats) -> Floats:
    """Each bet's density, integrated from 0 to p, (M, E)."""
    p_M1, power_K = p_M[:, None], np.array(POWERS)
    higher_MK, lower_MK = p_M1**power_K, 1 - (1 - p_M1) ** power_K
    middle_M1 = (3 - 2 * p_M1) * p_M1**2
    parts = (higher_MK, lower_MK, (higher_MK + lower_MK) / 2, middle_M1, (middle_M1 + p_M1) / 2)
    return np.concatenate(parts, axis=1)
