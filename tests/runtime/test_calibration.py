"""Thresholds keep their guarantee: ranks against exact sums, coverage by simulation, ties, and refusals."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
import torch
from crepes.base import p_values_batch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from oodream.runtime.calibration import (
    Guarantee,
    calibrate,
    conformal,
    least,
    least_alpha,
    other_half,
    p_values,
    tolerance,
)


def exact_rank(n: int, alpha: Fraction, confidence: Fraction) -> int | None:
    """The least k with P(Binomial(n, 1 - alpha) < k) >= confidence, in whole numbers."""
    below = Fraction(0)
    for k in range(1, n + 1):
        below += comb(n, k - 1) * (1 - alpha) ** (k - 1) * alpha ** (n - k + 1)
        if below >= confidence:
            return k
    return None


@pytest.mark.parametrize("n", [1, 10, 58, 59, 60, 92, 93, 100, 240])
@pytest.mark.parametrize(
    ("alpha", "confidence"), [("0.05", "0.95"), ("0.1", "0.9"), ("0.2", "0.99"), ("0.01", "0.5")]
)
def test_tolerance_takes_the_rank_that_exact_sums_give(n, alpha, confidence):
    rank, scores = exact_rank(n, Fraction(alpha), Fraction(confidence)), torch.arange(n) + 1
    if rank is None:
        assert n < least(float(alpha), float(confidence))
        with pytest.raises(
            ValueError, match=rf"takes {least(float(alpha), float(confidence)):,} held-out scores"
        ):
            tolerance(scores, float(alpha), float(confidence))
    else:
        assert n >= least(float(alpha), float(confidence))
        assert tolerance(scores, float(alpha), float(confidence)) == rank


def test_tolerance_agrees_with_the_published_numbers():
    # Wilks: 59 of a kind for 95 % / 95 % with the largest as the limit, 93 with the second largest.
    assert least(0.05, 0.95) == 59
    assert tolerance(torch.arange(59), 0.05, 0.95) == 58
    assert tolerance(torch.arange(93), 0.05, 0.95) == 91
    assert beta.sf(0.95, 92, 2) >= 0.95 > beta.sf(0.95, 91, 3)


@pytest.mark.parametrize("n", [9, 19, 20, 99, 1000])
@pytest.mark.parametrize("alpha", ["0.05", "0.1", "0.3", "0.01"])
def test_conformal_takes_the_rank_of_its_formula(n, alpha):
    share = 1 - Fraction(alpha)
    rank = -(-(n + 1) * share.numerator // share.denominator)  # rounded up, in whole numbers
    if rank > n:
        with pytest.raises(
            ValueError, match=rf"takes {least(float(alpha), None)} held-out scores, and there are {n}"
        ):
            conformal(torch.arange(n), float(alpha))
    else:
        assert conformal(torch.arange(n) + 1, float(alpha)) == rank
    assert (least(float(alpha), None) <= n) == (rank <= n)


def test_the_error_says_what_these_scores_can_guarantee():
    with pytest.raises(
        ValueError, match=r"takes 59 held-out scores, and there are 12: these can guarantee 0\.221"
    ):
        tolerance(torch.arange(12), 0.05, 0.95)
    tolerance(torch.arange(12), 0.221, 0.95)
    with pytest.raises(ValueError, match=r"takes 19 .* are 12: these can guarantee 0\.077"):
        conformal(torch.arange(12), 0.05)
    conformal(torch.arange(12), 0.077)


@pytest.mark.parametrize("confidence", [None, 0.5, 0.95])
@pytest.mark.parametrize("n", [1, 12, 59, 1000, 40_000])
def test_the_least_alpha_can_be_guaranteed_and_none_much_smaller(n, confidence):
    alpha = least_alpha(n, confidence)
    assert least(alpha, confidence) <= n < least(0.98 * alpha, confidence)
    assert float(f"{alpha:.3g}") == alpha


@pytest.mark.parametrize("levels", [0, 3])
def test_p_values_are_those_of_crepes(levels):
    g = torch.Generator().manual_seed(levels)
    held_out, scores = torch.randn(200, generator=g), torch.randn(300, generator=g) + 0.5
    if levels:
        held_out, scores = held_out.round(), scores.round()
    held_out, scores = np.sort(held_out.double().numpy()), scores.double().numpy()
    p = p_values(scores, held_out)
    assert p.dtype == np.float64
    expected = p_values_batch(held_out, scores, smoothing=False)
    assert p.tolist() == pytest.approx(expected.tolist(), abs=1e-15)
    for alpha in (0.01, 0.05, 0.3):
        assert ((p <= alpha) == (scores > conformal(held_out, alpha))).all()


def test_the_rate_is_kept_as_often_as_guaranteed_and_no_more_often():
    draws, n, g = 4000, 120, torch.Generator().manual_seed(0)
    scores = torch.rand(
        draws, n, generator=g, dtype=torch.float64
    )  # of a uniform score the rate above t is 1 - t
    rates = 1 - torch.tensor([tolerance(row, 0.1, 0.9) for row in scores], dtype=torch.float64)
    k = exact_rank(n, Fraction("0.1"), Fraction("0.9"))
    unlucky = beta.cdf(0.9, k, n + 1 - k)
    assert unlucky <= 0.1
    low, high = binom.interval(0.9999, draws, unlucky)
    assert low <= int((rates > 0.1).sum()) <= high


def test_conformal_keeps_the_rate_on_average():
    draws, n, g = 4000, 50, torch.Generator().manual_seed(1)
    scores = torch.rand(draws, n, generator=g, dtype=torch.float64)
    rates = 1 - torch.tensor([conformal(row, 0.1) for row in scores], dtype=torch.float64)
    assert abs(rates.mean() - (1 - 46 / 51)) < 4 * rates.std() / draws**0.5
    assert rates.mean() < 0.1 < rates.max()


@pytest.mark.parametrize("levels", [2, 5, 30])
def test_ties_make_for_fewer_alarms_never_for_more(levels):
    draws, n, g = 1000, 100, torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (draws, n), generator=g)
    limits = torch.tensor([tolerance(row, 0.1, 0.95) for row in scores])
    rates = 1 - (limits + 1) / levels
    assert int((rates > 0.1 + 1e-9).sum()) <= binom.ppf(0.9999, draws, 0.05)
    limits = torch.tensor([conformal(row, 0.1) for row in scores])
    assert (1 - (limits + 1) / levels).mean() <= 0.1 + 1e-9


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_constant_scores_raise_no_alarm(confidence):
    scores = torch.full((100,), -7.25)
    threshold, guarantee = calibrate(scores, 0.05, confidence)
    assert threshold == -7.25
    assert not (scores > threshold).any()
    assert guarantee == Guarantee(alpha=0.05, confidence=confidence, n=100)


@given(st.lists(st.integers(-1000, 1000), min_size=60, max_size=120), st.randoms(use_true_random=False))
def test_only_ranks_count(values, random):
    threshold = tolerance(torch.tensor(values), 0.05, 0.95)
    assert threshold in values
    shuffled = random.sample(values, len(values))
    assert tolerance(torch.tensor(shuffled), 0.05, 0.95) == threshold
    assert tolerance(torch.tensor(values) * 3 + 1, 0.05, 0.95) == 3 * threshold + 1
    assert tolerance(torch.tensor(values), 0.05, 0.95) >= conformal(torch.tensor(values), 0.05)


def test_scores_keep_their_last_digit():
    scores = -10 + torch.arange(100, dtype=torch.float64) * 1e-12
    assert tolerance(scores, 0.05, 0.95) in scores.tolist()


@pytest.mark.parametrize(
    ("confidence", "needed"), [(None, "999,999,999,999,999"), (0.95, "2,995,732,273,553,9")]
)
@pytest.mark.parametrize("alpha", [1e-16, 1e-300, 5e-324])
def test_an_alpha_beyond_all_counting_is_refused_in_few_words(alpha, confidence, needed):
    with pytest.raises(ValueError, match=f"rate of {alpha:.4g}.* takes more than {needed}.*there are 5:"):
        calibrate([1.0, 2.0, 3.0, 4.0, 5.0], alpha, confidence)


def test_what_is_refused():
    scores = torch.arange(100.0)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            tolerance(torch.cat([scores, torch.tensor([bad])]), 0.05, 0.95)
    for shape in ((0,), (10, 2)):
        with pytest.raises(ValueError, match="held-out scores"):
            conformal(torch.zeros(shape), 0.05)
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
            calibrate(scores, share, 0.95)
        with pytest.raises(ValueError, match="confidence lies between 0 and 1"):
            tolerance(scores, 0.05, share)


def test_guarantees_in_words():
    assert str(Guarantee(alpha=0.05, confidence=0.95, n=2000)) == (
        "at most 5.00% of known images are flagged, with 0.95 confidence (2,000 held-out images)"
    )
    assert "on average" in str(Guarantee(alpha=0.05, confidence=None, n=2000))
    by_class = {"alpha": 0.05, "confidence": 0.95, "n": 2000}
    assert str(Guarantee(**by_class, too_few={})) == (
        "at most 5.00% of known images are flagged, class by class, with 0.95 confidence "
        "(2,000 held-out images)"
    )
    assert str(Guarantee(**by_class, too_few={"fox": 12, "owl": 0})).endswith(
        "(2,000 held-out images; the common threshold where a class has fewer than 59: fox has 12, owl has 0)"
    )
    assert [Guarantee(alpha=0.1, confidence=c, n=9).kind for c in (None, 0.9)] == ["conformal", "tolerance"]


def test_the_other_half():
    g = np.random.default_rng(0)
    scores = g.random(2000)
    halves = [other_half(scores, 0.1, None, g.permutation(2000)) for _ in range(50)]
    assert {half.n for half in halves} == {1000}
    rates = [half.rate for half in halves]
    assert len(set(rates)) > 10
    assert abs(sum(rates) / 50 - 0.1) < 0.01  # halves of one set repel each other, so the mean is close
    assert other_half(scores, 0.05, 0.95, g.permutation(117)).n == 58
    assert other_half(scores, 0.05, 0.95, g.permutation(116)) is None
