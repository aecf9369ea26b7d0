"""Evidence of drift: a fair game against whole sums, odds against crepes, false alarms and delays by
simulation.
"""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from crepes.base import p_values_online_regression
from scipy.stats import beta, binom

from oodream.runtime.martingale import Martingale, bets, grow, stake

LOTS = np.random.default_rng(0)


def scores(n: int, seed: int, shift: float = 0.0, levels: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(n) + shift
    return np.round(values * levels) / levels if levels else values


def wealth(held_out, stream) -> float:
    return Martingale(score_N=np.asarray(held_out, float)).add(np.asarray(stream, float)).log10_wealth


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_game_is_fair(n):
    """Over all places that the next four scores may take among the held-out and each other, each as likely,
    the mean wealth is 1: in every step, and so at the end.
    """
    held_out = list(range(n))
    orders = list(product(*(range(n + 1 + t) for t in range(4))))
    means = []
    for steps in range(1, 5):
        total = 0.0
        for places in {order[:steps] for order in orders}:
            line = [float(x) for x in held_out]
            stream = []
            for place in places:
                low = line[place - 1] if place else line[0] - 1
                high = line[place] if place < len(line) else line[-1] + 1
                stream.append((low + high) / 2)
                line.insert(place, stream[-1])
            total += 10 ** wealth(held_out, stream)
        means.append(total / math.prod(n + 1 + t for t in range(steps)))
    assert means == pytest.approx([1.0] * 4, rel=1e-9)


def test_a_bet_pays_the_mean_of_its_density():
    """Against scipy's beta densities, of which all bets are mixtures."""
    low, high = np.sort(LOTS.random((2, 50)), axis=0)
    found = bets(low, high)

    def mean(a, b):
        return (beta.cdf(high, a, b) - beta.cdf(low, a, b)) / (high - low)

    higher, lower = ([mean(*(k, 1)[::way]) for k in (0.25, 0.5, 0.7, 0.9)] for way in (1, -1))
    both = [(a + b) / 2 for a, b in zip(higher, lower, strict=True)]
    expected = [*higher, *lower, *both, mean(2, 2), (mean(2, 2) + 1) / 2]
    np.testing.assert_allclose(found.T, expected, rtol=1e-9)
    np.testing.assert_allclose(bets(np.zeros(1), np.ones(1)), 1.0)


def test_wealth_is_that_of_a_loop():
    """Every bet and every beginning on its own, with its own purse."""
    low, high = np.sort(LOTS.random((2, 40)), axis=0)
    factors = bets(low, high)
    bank, purses, expected = 1.0, [], []
    for t, factor in enumerate(factors):
        kept = 1 / (1 + math.log(2 + t))
        purses.append(np.full(len(factor), (bank - kept) / len(factor)))
        bank = kept
        purses = [purse * factor for purse in purses]
        expected.append(math.log(bank + sum(purse.sum() for purse in purses)))
    log_E = np.full(factors.shape[1], -np.inf)
    np.testing.assert_allclose(grow(log_E, factors, 0)[1], expected, atol=1e-12)
    first, before = grow(log_E, factors[:7], 0)
    np.testing.assert_allclose([*before, *grow(first, factors[7:], 7)[1]], expected, atol=1e-12)
    assert stake(np.array([0.0])) == 1.0


@pytest.mark.parametrize("levels", [0, 2])
def test_odds_are_the_online_p_values(levels, monkeypatch):
    """crepes's p-value of each score, beside all before it, lies where ours is said to lie. Where scores of
    the stream fall into one gap, or tie, both have an interval of their own, and these overlap.
    """
    held_out, stream = scores(30, 1, levels=levels), scores(40, 2, 0.5, levels)
    intervals = []

    def noted(low, high):
        intervals.append((low, high))
        return bets(low, high)

    monkeypatch.setattr("oodream.runtime.martingale.bets", noted)
    Martingale(score_N=held_out).add(stream)
    low, high = intervals[-1]
    most = p_values_online_regression(stream, alphas_cal=held_out, smoothing=False)
    assert (low < most).all()
    if not levels:
        assert (most <= high + 1e-12).all()
    above = [(np.r_[held_out, stream[:t]] > stream[t]).sum() / (31 + t) for t in range(40)]
    assert (high > above).all()
    assert np.isclose(high - low, 1 / (31 + np.arange(40))).sum() > 10, "most gaps are met once"


@pytest.mark.parametrize("levels", [0, 1])
def test_how_the_stream_is_cut_makes_no_difference(levels):
    held_out, stream = scores(100, 3, levels=levels), scores(1500, 4, 0.1, levels)
    whole, parts = (Martingale(score_N=held_out) for _ in "ab")
    whole.add(stream)
    for start in range(0, 1500, 7):
        parts.add(stream[start : start + 7])
    assert (whole.n, parts.n) == (1500, 1500)
    assert parts.log10_wealth == pytest.approx(whole.log10_wealth, abs=1e-9)
    assert parts.log10_highest == pytest.approx(whole.log10_highest, abs=1e-9)
    assert whole.log10_highest >= max(0.0, whole.log10_wealth)


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("n", [20, 500])
def test_without_drift_there_are_no_more_false_alarms_than_said(n, levels):
    """400 streams of 1,000 scores, looked at after each, beside few and many held-out ones, with ties."""
    highest = [
        Martingale(score_N=scores(n, 2 * i, levels=levels)).add(scores(1000, 2 * i + 1, levels=levels))
        for i in range(400)
    ]
    for delta in (0.2, 0.05, 0.01):
        alarms = sum(m.log10_highest >= -math.log10(delta) for m in highest)
        assert alarms <= binom.ppf(0.999, 400, delta)
    assert sum(m.log10_highest >= math.log10(5) for m in highest) >= 4, "not by never betting"


@pytest.mark.parametrize(
    ("change", "within"),
    [
        (lambda x: x + 1, 60),
        (lambda x: x - 1, 60),
        (lambda x: x + 0.5, 300),
        (lambda x: 2 * x, 200),
        (lambda x: x / 3, 300),
        (lambda x: np.where(np.arange(len(x)) % 5 == 0, x + 5, x), 60),
    ],
)
@pytest.mark.parametrize("before", [0, 2000])
def test_a_drift_is_seen(change, within, before):
    """In nearly all streams, of higher, lower, wider and narrower scores, and of a fifth that is strange."""
    seen = 0
    for i in range(20):
        martingale = Martingale(score_N=scores(1000, 3 * i)).add(scores(before, 3 * i + 1))
        assert martingale.log10_highest < 2
        seen += martingale.add(change(scores(within, 3 * i + 2))).log10_highest >= 2
    assert seen >= 18


def test_memory_does_not_grow():
    martingale = Martingale(score_N=scores(100, 0)).add(scores(1000, 1))
    size = len(pickle.dumps(martingale))
    martingale.add(scores(50_000, 2))
    assert len(pickle.dumps(martingale)) <= 1.05 * size


def test_it_needs_numpy_alone():
    code = "import sys, oodream.runtime.martingale; assert not {'torch', 'scipy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
