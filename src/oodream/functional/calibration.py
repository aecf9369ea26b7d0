"""Thresholds that keep a promise: from scores of known images that nothing was fitted on, the limit above which one is "unknown".

An alarm is a score above the threshold, and the promise is about false alarms: those on images drawn as the held-out ones were.
Only ranks count, so the score may be any; ties and constant scores make for fewer alarms, never for more. Nothing is said of OOD
images, nor of known ones that come from elsewhere. N held-out ID scores; sign as everywhere: higher for OOD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from scipy.stats import binom
from torch import Tensor

from ..core.seeding import generator


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """At most the share `alpha` of known images is called unknown, as `n` held-out images tell.

    With a `confidence` this holds for the threshold at hand, unless the draw of the held-out images was one of the unlucky
    1 - confidence. Without one it holds on average over such draws.
    """

    alpha: float
    confidence: float | None
    n: int

    @property
    def kind(self) -> str:
        """ "tolerance" or "conformal"."""
        return "conformal" if self.confidence is None else "tolerance"

    def __str__(self) -> str:
        how = "on average" if self.confidence is None else f"with {self.confidence:.4g} confidence"
        return (
            f"at most {self.alpha:.2%} of known images are called unknown, {how} ({self.n:,} held-out images)"
        )


def calibrate(score_N: Tensor, alpha: float, confidence: float | None) -> tuple[float, Guarantee]:
    """The threshold of `tolerance`, or without a confidence of `conformal`, and what it promises; errors as theirs."""
    threshold = conformal(score_N, alpha) if confidence is None else tolerance(score_N, alpha, confidence)
    return threshold, Guarantee(alpha=alpha, confidence=confidence, n=len(score_N))


def conformal(score_N: Tensor, alpha: float) -> float:
    """The ceil((N + 1)(1 - alpha))-th smallest score: the false-alarm rate is at most alpha on average over calibration sets.

    Split conformal prediction (Vovk, Gammerman & Shafer 2005; Angelopoulos & Bates 2021, section 1): with the next score all N + 1
    are exchangeable, so it exceeds the k-th smallest with a chance of at most 1 - k / (N + 1). For one calibration set the rate may
    lie above alpha, about as often as not. ValueError names the least N that can promise alpha.
    """
    _check(score_N, alpha)
    share = 1 - _exact(alpha)
    if (k := math.ceil((len(score_N) + 1) * share)) > len(score_N):
        raise ValueError(_too_few(len(score_N), alpha, None))
    return _smallest(score_N, k)


def tolerance(score_N: Tensor, alpha: float, confidence: float) -> float:
    """The k-th smallest score, k the least for which the false-alarm rate is at most alpha with this confidence.

    An upper tolerance limit (Wilks 1941): the share of known images at or below the k-th smallest of N scores is
    Beta(k, N + 1 - k), or more where scores tie, so k is the least with P(Binomial(N, 1 - alpha) < k) >= confidence. The
    confidence is over the draw of the calibration set. ValueError names the least N that can promise alpha.
    """
    _check(score_N, alpha)
    _check_share("confidence", confidence)
    if (k := int(binom.ppf(confidence, len(score_N), 1 - alpha)) + 1) > len(score_N):
        raise ValueError(_too_few(len(score_N), alpha, confidence))
    return _smallest(score_N, k)


def least(alpha: float, confidence: float | None) -> int:
    """How many held-out scores it takes to promise `alpha`."""
    if confidence is None:
        return math.ceil(1 / _exact(alpha) - 1)
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha))


def other_half(score_N: Tensor, alpha: float, confidence: float | None, seed: int) -> float | None:
    """The false-alarm rate on one half of the scores at the threshold from the other; None where a half cannot promise alpha."""
    first_M, second_M = score_N[
        torch.randperm(len(score_N), generator=generator(seed, "halves"))
    ].tensor_split(2)
    if len(first_M) < least(alpha, confidence):
        return None
    return float((second_M > calibrate(first_M, alpha, confidence)[0]).double().mean())


def _too_few(n: int, alpha: float, confidence: float | None) -> str:
    best = 1 / (n + 1) if confidence is None else 1 - (1 - confidence) ** (1 / n)
    how = "" if confidence is None else f" with {confidence:.4g} confidence"
    return (
        f"To promise a false-alarm rate of {alpha:.4g}{how} takes {least(alpha, confidence):,} held-out scores, and there "
        f"are {n:,}: these can promise {math.ceil(1000 * best) / 1000:.3f}."
    )


def _exact(alpha: float) -> Fraction:
    """The decimal that was written, so that 0.1 is a tenth, and a rank that comes out whole is not rounded up."""
    return Fraction(str(alpha))


def _smallest(score_N: Tensor, k: int) -> float:
    return float(score_N.double().kthvalue(k).values)


def _check(score_N: Tensor, alpha: float) -> None:
    _check_share("alpha", alpha)
    if score_N.ndim != 1 or not len(score_N):
        raise ValueError(f"Thresholds are made from held-out scores (N,), not from {tuple(score_N.shape)}.")
    if not score_N.isfinite().all():
        raise ValueError("The held-out scores contain NaN or infinity.")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} lies between 0 and 1, not at {value}.")
