"""Thresholds with a guarantee, from scores of held-out known images; an image above its threshold is flagged.

The guarantee bounds the false-alarm rate alpha: the share of known images, drawn as the held-out ones were,
that are flagged. Nothing may have been fitted on the held-out images. Only ranks count, so any score will do;
ties and constant scores flag fewer images, never more. Nothing is guaranteed for OOD images, nor for known
images of another origin. N held-out ID scores, higher for OOD.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from scipy.stats import binom
from torch import Tensor

from ..core.seeding import generator
from ..runtime.answers import Guarantee

__all__ = ["calibrate", "conformal", "least", "other_half", "tolerance"]


def calibrate(score_N: Tensor, alpha: float, confidence: float | None) -> tuple[float, Guarantee]:
    """The threshold of `tolerance`, or without a confidence of `conformal`, and its guarantee."""
    threshold = conformal(score_N, alpha) if confidence is None else tolerance(score_N, alpha, confidence)
    return threshold, Guarantee(alpha=alpha, confidence=confidence, n=len(score_N))


def conformal(score_N: Tensor, alpha: float) -> float:
    """The ceil((N + 1)(1 - alpha))-th smallest score.

    The false-alarm rate is at most alpha on average over draws of the held-out images; for one draw it lies
    above alpha about as often as not. Split conformal prediction (Vovk, Gammerman & Shafer 2005; Angelopoulos
    & Bates 2021, section 1): all N + 1 scores are exchangeable, so the next one exceeds the k-th smallest
    with a chance of at most 1 - k / (N + 1).

    Raises ValueError for scores that are not finite or not (N,), and where N is too small; it names the least
    N.
    """
    _check(score_N, alpha)
    share = 1 - _exact(alpha)
    if (k := math.ceil((len(score_N) + 1) * share)) > len(score_N):
        raise ValueError(_too_few(len(score_N), alpha, None))
    return _smallest(score_N, k)


def tolerance(score_N: Tensor, alpha: float, confidence: float) -> float:
    """The k-th smallest score, k the least that keeps the false-alarm rate to alpha with this confidence.

    An upper tolerance limit (Wilks 1941): the share of known images at or below the k-th smallest of N scores
    is Beta(k, N + 1 - k), or more where scores tie, so k is the least with P(Binomial(N, 1 - alpha) < k) >=
    confidence. The confidence is over draws of the held-out images. Errors as `conformal`.
    """
    _check(score_N, alpha)
    _check_share("confidence", confidence)
    if (k := int(binom.ppf(confidence, len(score_N), 1 - alpha)) + 1) > len(score_N):
        raise ValueError(_too_few(len(score_N), alpha, confidence))
    return _smallest(score_N, k)


def least(alpha: float, confidence: float | None) -> int:
    """The least number of held-out scores that can guarantee `alpha`."""
    if confidence is None:
        return math.ceil(1 / _exact(alpha) - 1)
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha))


def other_half(score_N: Tensor, alpha: float, confidence: float | None, seed: int) -> float | None:
    """The false-alarm rate on a random half of the scores at the threshold from the other half.

    None where a half is too small to guarantee alpha.
    """
    order_N = torch.randperm(len(score_N), generator=generator(seed, "halves"))
    first_M, second_M = score_N[order_N].tensor_split(2)
    if len(first_M) < least(alpha, confidence):
        return None
    return float((second_M > calibrate(first_M, alpha, confidence)[0]).double().mean())


def _too_few(n: int, alpha: float, confidence: float | None) -> str:
    best = 1 / (n + 1) if confidence is None else 1 - (1 - confidence) ** (1 / n)
    how = "" if confidence is None else f" with {confidence:.4g} confidence"
    return (
        f"To guarantee a false-alarm rate of {alpha:.4g}{how} takes {least(alpha, confidence):,} held-out "
        f"scores, and there are {n:,}: these can guarantee {math.ceil(1000 * best) / 1000:.3f}."
    )


def _exact(alpha: float) -> Fraction:
    """The decimal as written: 0.1 is a tenth, so a rank that is a whole number is not rounded up."""
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
