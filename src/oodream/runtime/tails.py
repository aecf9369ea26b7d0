"""Tails of three distributions, by NumPy and the standard library: what scipy is not there for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "binomial_tail", "kolmogorov_tail", "wilson"]

Floats = NDArray[np.float64]
Z95 = 1.959963984540054  # the normal distribution's quantile of 97.5 %


def binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p), 0 < p < 1.

    Above the mean the terms fall faster than a geometric series from P(X = k) on, so those within ten
    standard deviations and 1,000 more hold all that a float can; below it the other tail is subtracted.
    """
    if k <= 0 or k > n:
        return float(k <= 0)
    if k <= n * p:
        return 1 - binomial_tail(n - k + 1, n, 1 - p)
    log_first = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    log_first += k * math.log(p) + (n - k) * math.log1p(-p)
    terms = min(n - k, 1000 + math.ceil(10 * math.sqrt(n * p * (1 - p))))
    j = np.arange(k, k + terms, dtype=np.float64)
    ratio = (n - j) / (j + 1) * (p / (1 - p))
    return math.exp(log_first) * float(1 + np.cumprod(ratio).sum())


def kolmogorov_tail(x: float) -> float:
    """The limit of P(sqrt(n) D > x), D the distance of Kolmogorov and Smirnov of n samples (Smirnov 1948).

    Of its two series each is summed where it falls fast.
    """
    if x <= 0:
        return 1.0
    odd = np.arange(1, 40, 2)
    if x < 1:
        return 1 - math.sqrt(2 * math.pi) / x * float(np.exp(-((odd * math.pi / x) ** 2) / 8).sum())
    j = np.arange(1, 20)
    return 2 * float(((-1.0) ** (j - 1) * np.exp(-2 * (j * x) ** 2)).sum())


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % score interval (low, high) of a share `hits / n` (Wilson 1927)."""
    share, z2 = hits / n, Z95**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (0.0 if hits == 0 else center - half), (1.0 if hits == n else center + half)
