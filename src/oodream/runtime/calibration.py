"""Thresholds with a guarantee, from scores of held-out known images; an image above its threshold is flagged.

The guarantee bounds the false-alarm rate alpha: the share of known images, drawn as the held-out ones were,
that are flagged. Nothing may have been fitted on the held-out images. Only ranks count, so any score will do;
ties and constant scores flag fewer images, never more. Nothing is guaranteed for OOD images, nor for known
images of another origin. N held-out ID scores, higher for OOD.

A guarantee for each class is Mondrian (Vovk et al. 2005, section 4.5): a threshold comes from the held-out
images that the network takes for the class, and holds for the known images that it takes for it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..core.errors import listed
from .tails import Floats, binomial_tail

__all__ = [
    "Guarantee",
    "OtherHalf",
    "calibrate",
    "conformal",
    "least",
    "least_alpha",
    "other_half",
    "p_values",
    "tolerance",
]

COUNTED = 1e-15  # the least alpha for which the number of held-out scores is told
ROUNDING = 1e-9  # of a tail, so that one that is just as large as allowed is not taken for larger


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """At most the share `alpha` of known images is flagged, by `n` held-out images.

    With a `confidence` this holds for the threshold at hand, unless the draw of the held-out images was one
    of the unlucky 1 - confidence. Without one it holds on average over such draws.

    `too_few` is None for one threshold for all. Else the guarantee is one for each class that a known image
    is taken for, but for the classes named there, each with its number of held-out images: they are too few
    for a threshold of its own, and it has the common one.
    """

    alpha: float
    confidence: float | None
    n: int
    too_few: Mapping[str, int] | None = None

    @property
    def kind(self) -> str:
        """The rule behind the threshold: "tolerance" or "conformal"."""
        return "conformal" if self.confidence is None else "tolerance"

    def __str__(self) -> str:
        how = "on average" if self.confidence is None else f"with {self.confidence:.4g} confidence"
        held_out = f"{self.n:,} held-out images"
        if self.too_few is None:
            return f"at most {self.alpha:.2%} of known images are flagged, {how} ({held_out})"
        if self.too_few:
            counts = listed(f"{name} has {n}" for name, n in self.too_few.items())
            needed = least(self.alpha, self.confidence)
            held_out += f"; the common threshold where a class has fewer than {needed}: {counts}"
        return f"at most {self.alpha:.2%} of known images are flagged, class by class, {how} ({held_out})"


@dataclass(frozen=True, kw_only=True)
class OtherHalf:
    """What a threshold from one half of the held-out scores does on the `n` of the other: it flags so many of
    them, the share `rate`.
    """

    flagged: int
    n: int

    @property
    def rate(self) -> float:
        return self.flagged / self.n


def calibrate(score_N: ArrayLike, alpha: float, confidence: float | None) -> tuple[float, Guarantee]:
    """The threshold of `tolerance`, or without a confidence of `conformal`, and its guarantee."""
    threshold = conformal(score_N, alpha) if confidence is None else tolerance(score_N, alpha, confidence)
    return threshold, Guarantee(alpha=alpha, confidence=confidence, n=len(np.asarray(score_N)))


def conformal(score_N: ArrayLike, alpha: float) -> float:
    """The ceil((N + 1)(1 - alpha))-th smallest score.

    The false-alarm rate is at most alpha on average over draws of the held-out images; for one draw it lies
    above alpha about as often as not. Split conformal prediction (Vovk, Gammerman & Shafer 2005; Angelopoulos
    & Bates 2021, section 1): all N + 1 scores are exchangeable, so the next one exceeds the k-th smallest
    with a chance of at most 1 - k / (N + 1).

    Raises ValueError for scores that are not finite or not (N,), and where N is too small; it names the least
    N.
    """
    ordered_N = _ordered(score_N, alpha)
    n, share = len(ordered_N), 1 - _exact(alpha)
    if (k := math.ceil((n + 1) * share)) > n:
        raise ValueError(_too_few(n, alpha, None))
    return float(ordered_N[k - 1])


def tolerance(score_N: ArrayLike, alpha: float, confidence: float) -> float:
    """The k-th smallest score, k the least that keeps the false-alarm rate to alpha with this confidence.

    An upper tolerance limit (Wilks 1941): the share of known images at or below the k-th smallest of N scores
    is Beta(k, N + 1 - k), or more where scores tie, so k is the least with P(Binomial(N, 1 - alpha) < k) >=
    confidence. The confidence is over draws of the held-out images. Errors as `conformal`.
    """
    ordered_N = _ordered(score_N, alpha)
    _check_share("confidence", confidence)
    n = len(ordered_N)
    if 1 - alpha == 1:
        raise ValueError(_too_few(n, alpha, confidence))
    ranks = range(1, n + 2)  # the tail falls with the rank, to 0 at n + 1
    allowed = (1 - confidence) * (1 + ROUNDING)
    i = bisect_left(ranks, True, key=lambda k: binomial_tail(k, n, 1 - alpha) <= allowed)
    if (k := ranks[i]) > n:
        raise ValueError(_too_few(n, alpha, confidence))
    return float(ordered_N[k - 1])


def least(alpha: float, confidence: float | None) -> int:
    """The least number of held-out scores that can guarantee `alpha`."""
    if confidence is None:
        return math.ceil(1 / _exact(alpha) - 1)
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha))


def p_values(score_B: ArrayLike, ordered_N: Floats) -> Floats:
    """Conformal p-values (B,), float64, of scores (B,) beside the held-out ones, ascending: the share of all
    N + 1 scores, each one's own included, that are at least as high.

    A known image's is at most p with a chance of at most p, over draws of it and of the held-out images
    together (Vovk et al. 2005). It is at most alpha where the score exceeds the threshold of `conformal`.
    """
    at_least_B = len(ordered_N) - np.searchsorted(ordered_N, np.asarray(score_B))
    return (1 + at_least_B) / (len(ordered_N) + 1)


def least_alpha(n: int, confidence: float | None) -> float:
    """The least alpha that n held-out scores can guarantee, rounded up to three digits."""
    alpha = 1 / (n + 1) if confidence is None else -math.expm1(math.log1p(-confidence) / n)
    scale = 10 ** (2 - math.floor(math.log10(alpha)))
    return math.ceil(alpha * scale) / scale


def other_half(
    score_N: Floats, alpha: float, confidence: float | None, order_N: NDArray[np.int64]
) -> OtherHalf | None:
    """How many of the second half of the scores, in this order, the threshold from the first flags.

    None where a half is too small to guarantee alpha.
    """
    first_M, second_M = np.array_split(score_N[order_N], 2)
    if len(first_M) < least(alpha, confidence):
        return None
    flagged = int((second_M > calibrate(first_M, alpha, confidence)[0]).sum())
    return OtherHalf(flagged=flagged, n=len(second_M))


def _too_few(n: int, alpha: float, confidence: float | None) -> str:
    how = "" if confidence is None else f" with {confidence:.4g} confidence"
    needed = f"{'more than ' * (alpha < COUNTED)}{least(max(alpha, COUNTED), confidence):,}"
    return (
        f"To guarantee a false-alarm rate of {alpha:.4g}{how} takes {needed} held-out scores, and "
        f"there are {n:,}: these can guarantee {least_alpha(n, confidence):.3g}."
    )


def _exact(alpha: float) -> Fraction:
    """The decimal as written: 0.1 is a tenth, so a rank that is a whole number is not rounded up."""
    return Fraction(str(alpha))


def _ordered(score_N: ArrayLike, alpha: float) -> Floats:
    """The scores, checked, ascending."""
    _check_share("alpha", alpha)
    checked_N = np.asarray(score_N, dtype=np.float64)
    if checked_N.ndim != 1 or not len(checked_N):
        raise ValueError(f"Thresholds are made from held-out scores (N,), not from {checked_N.shape}.")
    if not np.isfinite(checked_N).all():
        raise ValueError("The held-out scores contain NaN or infinity.")
    return np.sort(checked_N)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies between 0 and 1, not at {value}.")
