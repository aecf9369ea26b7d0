"""Tails against scipy, far out and near the middle; Wilson's interval against published values and its
formula.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binom, kstwobign

from oodream.runtime.tails import binomial_tail, kolmogorov_tail, wilson


@pytest.mark.parametrize("p", [1e-9, 1e-4, 0.01, 0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 10, 59, 1000, 100_000])
def test_the_binomial_tail_is_scipys(n, p):
    middle, spread = n * p, math.sqrt(n * p * (1 - p))
    near = (int(middle + d * spread) for d in (-6, -3, -1, 0, 1, 3, 6, 12))
    for k in {-1, 0, 1, 2, n // 2, n - 1, n, n + 1, *near}:
        expected = binom.sf(k - 1, n, p)
        assert binomial_tail(k, n, p) == pytest.approx(expected, rel=1e-9, abs=1e-290), k


def test_of_ten_million_the_tail_is_right_to_seven_digits():
    for k in (499_000, 500_000, 502_000):
        assert binomial_tail(k, 10**7, 0.05) == pytest.approx(binom.sf(k - 1, 10**7, 0.05), rel=1e-7)


def test_kolmogorovs_tail_is_scipys():
    for x in np.linspace(0, 6, 301):
        assert kolmogorov_tail(x) == pytest.approx(kstwobign.sf(x), rel=1e-9, abs=1e-13)


def test_wilson_interval_against_published_values() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((0.8389, 1), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (3, 7), (500, 1000), (9_999, 10_000)])
def test_wilson_interval_is_its_formula(hits: int, n: int) -> None:
    z, p = NormalDist().inv_cdf(0.975), hits / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    assert wilson(hits, n) == pytest.approx(expected, abs=1e-12)
