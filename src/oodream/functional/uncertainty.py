"""How certain an AUROC is, or a difference between two methods.

Two sources of chance are kept apart. *Images*: another sample of test images would give another number.
DeLong's variance and test (and the bootstrap in `metrics`) measure that, for one classifier. *Seeds*: another
training would give another classifier. `paired` measures that, from one number for each seed.

scipy.stats is imported where it is needed: its import takes half as long as PyTorch's, and a guard that
answers needs none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

__all__ = ["Area", "Difference", "GainShare", "delong", "delong_test", "gain_share", "paired"]

Z95 = 1.959964
ROUNDING = 1e-12  # of a number: differences that differ by less are equal


@dataclass(frozen=True, kw_only=True)
class Area:
    """An AUROC with DeLong's variance, and its 95 % interval from the logit scale, inside [0, 1]."""

    value: float
    variance: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference (second less first), its 95 % interval, and the two-sided p-value against zero.

    Both are None where nothing that was compared differs from the mean: no spread is no evidence of one.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None


def delong(id_N: Tensor, ood_M: Tensor) -> Area:
    """The AUROC, OOD positive, with DeLong's variance.

    DeLong et al. 1988, computed by midranks (Sun & Xu 2014). Ties count one half. Where all ID scores lie on
    one side of all OOD scores the estimated variance is zero, and the interval is that of the rule of three,
    1 - 3 / min(N, M).

    Raises ValueError for NaN, or fewer than two scores on a side.
    """
    value, placed = _placements([(id_N, ood_M)])
    variance = float(_covariance(placed)[0, 0])
    return Area(
        value=float(value[0]),
        variance=variance,
        interval=_interval(float(value[0]), variance, min(len(id_N), len(ood_M))),
    )


def delong_test(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Difference:
    """The difference in AUROC of two scores of the *same* images: paired, two-sided, normal.

    DeLong et al. 1988. Each argument is (ID scores, OOD scores), with the images in the same order. Errors as
    `delong`, and ValueError for unequal numbers of images.
    """
    from scipy.stats import norm

    if [len(scores) for scores in first] != [len(scores) for scores in second]:
        raise ValueError("A paired test needs both methods' scores of the same images.")
    value, placed = _placements([first, second])
    cov = _covariance(placed)
    difference, deviation = (
        float(value[1] - value[0]),
        math.sqrt(max(0.0, float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]))),
    )
    if not deviation:
        return Difference(value=difference, interval=None, p=None)
    half, p = Z95 * deviation, float(2 * norm.sf(abs(difference) / deviation))
    return Difference(value=difference, interval=(difference - half, difference + half), p=p)


def paired(first_S: Sequence[float], second_S: Sequence[float]) -> Difference:
    """The difference of two methods over S seeds, from one number for each seed.

    Student's paired t-test (Student 1908). Differences that are all equal, as few images make them, give
    neither interval nor p.

    Raises ValueError for unequal numbers of seeds, fewer than two, or NaN.
    """
    from scipy.stats import ttest_rel

    difference_S = _differences(first_S, second_S)
    mean = float(difference_S.mean())
    if np.ptp(difference_S) <= ROUNDING * np.abs([*first_S, *second_S]).max():
        return Difference(value=mean, interval=None, p=None)
    test = ttest_rel(second_S, first_S)
    low, high = test.confidence_interval(0.95)
    return Difference(value=mean, interval=(float(low), float(high)), p=float(test.pvalue))


@dataclass(frozen=True, kw_only=True)
class GainShare:
    """Which share of a reference's gain over a baseline a method attains, with a 95 % interval.

    1 is all of it; a method that loses has a negative share. `reference` is the gain that is shared. Where it
    is not certain to be above zero, `value` and `interval` are None: such a ratio would say nothing.
    """

    value: float | None
    interval: tuple[float, float] | None
    reference: Difference


def gain_share(
    baseline_S: Sequence[float], method_S: Sequence[float], reference_S: Sequence[float]
) -> GainShare:
    """(mean of method - mean of baseline) / (mean of reference - mean of baseline), over S seeds.

    Higher numbers are better. The share is defined where the paired t-test has an interval of the reference's
    gain, above zero. Its own interval is Fieller's (1954): all shares r for which a paired t-test finds no
    difference between the method's gain and r times the reference's. It holds with few seeds, too, where a
    bootstrap over seeds is far too narrow.

    Raises ValueError as `paired`.
    """
    from scipy.stats import t as student_t

    gain_S, reference_gain_S = (_differences(baseline_S, other_S) for other_S in (method_S, reference_S))
    reference = paired(baseline_S, reference_S)
    if reference.interval is None or reference.interval[0] <= 0:
        return GainShare(value=None, interval=None, reference=reference)
    n, gain, of_reference = len(gain_S), gain_S.mean(), reference_gain_S.mean()
    variance = np.cov(gain_S, reference_gain_S) * (student_t.ppf(0.975, n - 1) ** 2 / n)
    # (gain - r of_reference)^2 = t^2 var(gain - r of_reference) / n, a quadratic in r: a r^2 - 2 b r + c = 0
    a = of_reference**2 - variance[1, 1]
    b = gain * of_reference - variance[0, 1]
    c = gain**2 - variance[0, 0]
    half = math.sqrt(max(0.0, b**2 - a * c))
    return GainShare(
        value=float(gain / of_reference),
        interval=(float((b - half) / a), float((b + half) / a)),
        reference=reference,
    )


def _differences(first_S: Sequence[float], second_S: Sequence[float]) -> np.ndarray:
    """Second less first, seed by seed; ValueError where they cannot be compared."""
    if len(first_S) != len(second_S) or len(first_S) < 2:
        raise ValueError(
            "A paired test needs the same two or more seeds of both methods; "
            f"there are {len(first_S)} and {len(second_S)}."
        )
    difference_S = np.subtract(second_S, first_S, dtype=np.float64)
    if np.isnan(difference_S).any():
        raise ValueError("The numbers to compare contain NaN.")
    return difference_S


def _placements(methods: Sequence[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """AUROCs of K scores, and the placements of ID (K, N) and OOD (K, M).

    A placement is the share of the other side's scores that a score ranks correctly against.
    """
    from scipy.stats import rankdata

    values, of_id, of_ood = [], [], []
    for scores in methods:
        id_N, ood_M = (side.detach().cpu().double().numpy() for side in scores)
        if min(len(id_N), len(ood_M)) < 2:
            raise ValueError(
                "DeLong's variance needs two scores of each side; "
                f"there are {len(id_N)} ID and {len(ood_M)} OOD."
            )
        if np.isnan(id_N).any() or np.isnan(ood_M).any():
            raise ValueError("The scores contain NaN.")
        together = rankdata(np.concatenate([id_N, ood_M]))
        of_ood.append((together[len(id_N) :] - rankdata(ood_M)) / len(id_N))
        of_id.append(1 - (together[: len(id_N)] - rankdata(id_N)) / len(ood_M))
        values.append(of_ood[-1].mean())
    return np.array(values), (np.array(of_id), np.array(of_ood))


def _covariance(placed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The covariance of the AUROCs (K, K)."""
    return np.asarray(sum(np.atleast_2d(np.cov(side)) / side.shape[1] for side in placed))


def _interval(value: float, variance: float, smaller: int) -> tuple[float, float]:
    if value in (0.0, 1.0):
        return (1 - min(1.0, 3 / smaller), 1.0) if value else (0.0, min(1.0, 3 / smaller))
    centre, half = math.log(value / (1 - value)), Z95 * math.sqrt(variance) / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-min(700.0, max(-700.0, x)))) for x in (centre - half, centre + half))
    return low, high
