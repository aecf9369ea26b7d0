"""DeLong's variance and tests against explicit sums, simulation and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t
from torch import Tensor

from oodream.functional.metrics import auroc
from oodream.functional.uncertainty import delong, delong_test, gain_share, paired


def draw(n: int, m: int, seed: int, shift: float = 1.0, ties: bool = False) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    both = (
        torch.randn(n, generator=g, dtype=torch.float64),
        torch.randn(m, generator=g, dtype=torch.float64) + shift,
    )
    return (both[0].round(), both[1].round()) if ties else both


def explicit(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs and their covariance by DeLong's sums over all pairs."""
    v_id, v_ood = [], []
    for id_N, ood_M in (first, second):
        psi = (ood_M[:, None] > id_N).double() + 0.5 * (ood_M[:, None] == id_N).double()
        v_ood.append(psi.mean(1).numpy())
        v_id.append(psi.mean(0).numpy())
    cov = np.cov(v_id) / len(v_id[0]) + np.cov(v_ood) / len(v_ood[0])
    return np.array([v.mean() for v in v_ood]), cov


@pytest.mark.parametrize("ties", [False, True])
def test_delong_is_the_sum_over_all_pairs(ties: bool) -> None:
    first, second = draw(60, 45, 0, ties=ties), draw(60, 45, 1, 0.4, ties=ties)
    second = (second[0] + first[0], second[1] + first[1])
    values, cov = explicit(first, second)
    area = delong(*first)
    assert area.value == pytest.approx(auroc(*first)) == pytest.approx(values[0])
    assert area.variance == pytest.approx(cov[0, 0])
    difference = delong_test(first, second)
    assert difference.value == pytest.approx(values[1] - values[0])
    half = 1.959964 * np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert difference.interval == pytest.approx((difference.value - half, difference.value + half))


def test_delongs_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 0.7602499389065233  # P(N(1, 1) > N(0, 1))
    hits = sum(
        low <= truth <= high for low, high in (delong(*draw(80, 60, seed)).interval for seed in range(300))
    )
    assert 270 <= hits <= 297  # 95 % of 300 is 285, and its standard deviation is 3.8


def test_delongs_test_rejects_equals_about_as_often_as_it_says() -> None:
    def p(seed: int) -> float:
        noise, image = draw(80, 80, 1000 + seed, 0.0), draw(80, 80, seed)
        other = draw(80, 80, 2000 + seed, 0.0)
        first, second = ((image[0] + e[0], image[1] + e[1]) for e in (noise, other))
        return delong_test(first, second).p

    assert 4 <= sum(p(seed) < 0.05 for seed in range(300)) <= 28  # 15 expected


def test_wholly_apart_and_wholly_alike() -> None:
    apart = delong(torch.arange(10.0), torch.arange(20.0, 50.0))
    assert (apart.value, apart.interval) == (1.0, (0.7, 1.0))
    assert delong(torch.arange(20.0, 50.0), torch.arange(10.0)).interval == (0.0, pytest.approx(0.3))
    alike = delong(torch.zeros(5), torch.zeros(7))
    assert (alike.value, alike.variance, alike.interval) == (0.5, 0.0, (0.5, 0.5))
    same = draw(9, 9, 0)
    assert delong_test(same, same).p is None


def test_the_paired_test_is_students() -> None:
    a, b = [0.3, 0.41, 0.36, 0.5], [0.25, 0.33, 0.35, 0.38]
    differences = np.subtract(b, a)
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(4)
    half = t.ppf(0.975, 3) * error
    difference = paired(a, b)
    assert difference.value == pytest.approx(mean, abs=1e-12)
    assert difference.interval == pytest.approx((mean - half, mean + half), abs=1e-12)
    assert difference.p == pytest.approx(2 * t.sf(abs(mean) / error, 3), abs=1e-12)


def test_equal_differences_show_no_spread_and_no_evidence() -> None:
    for first, second, value in (([1.0, 2.0], [1.0, 2.0], 0.0), ([0.1, 0.7], [0.4, 1.0], 0.3)):
        difference = paired(first, second)
        assert difference.value == pytest.approx(value)
        assert (difference.interval, difference.p) == (None, None)
    share = gain_share([1.0, 2.0], [1.5, 2.0], [2.0, 3.0])
    assert (share.value, share.interval) == (None, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: delong(torch.zeros(1), torch.zeros(5)), "needs two scores of each side"),
        (lambda: delong(torch.tensor([0.0, torch.nan]), torch.zeros(5)), "NaN"),
        (lambda: delong_test(draw(5, 5, 0), draw(5, 6, 0)), "same images"),
        (lambda: paired([1.0], [2.0]), "two or more seeds"),
        (lambda: paired([1.0, 2.0], [2.0]), "there are 2 and 1"),
        (lambda: paired([1.0, 2.0], [2.0, float("nan")]), "NaN"),
        (lambda: gain_share([1.0], [2.0], [3.0]), "two or more seeds"),
        (lambda: gain_share([1.0, 1.0], [2.0], [3.0, 3.0]), "there are 2 and 1"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_share_of_a_gain_is_the_ratio_of_mean_gains_and_its_interval_inverts_a_paired_test() -> None:
    baseline, method, oracle = [70.0, 71.0, 69.5, 70.2], [71.0, 74.5, 70.0, 73.0], [78.0, 77.5, 79.0, 77.9]
    share = gain_share(baseline, method, oracle)
    assert share.value == pytest.approx(
        (np.mean(method) - np.mean(baseline)) / (np.mean(oracle) - np.mean(baseline))
    )
    assert share.reference == paired(baseline, oracle)

    def p(r: float) -> float:
        """Of the hypothesis that the share is r."""
        return paired(np.subtract(method, baseline), r * np.subtract(oracle, baseline)).p

    accepted = [r for r in np.linspace(-2, 3, 5001) if p(r) >= 0.05]
    assert share.interval == pytest.approx((accepted[0], accepted[-1]), abs=0.001)


def test_seeds_keep_their_three_numbers_together() -> None:
    """Whoever follows the oracle seed by seed has its share for certain, however far seeds lie apart."""
    baseline, oracle = np.array([50.0, 70.0, 90.0]), np.array([58.0, 79.0, 98.0])
    share = gain_share(baseline, baseline + 0.25 * (oracle - baseline), oracle)
    assert (share.value, *share.interval) == pytest.approx((0.25, 0.25, 0.25))


def test_who_loses_has_a_negative_share_and_the_oracle_all_of_it() -> None:
    baseline, oracle = [70.0, 71.0, 72.0], [78.0, 79.0, 81.0]
    assert gain_share(baseline, [66.0, 66.0, 69.0], oracle).value == pytest.approx(-12 / 25)
    assert gain_share(baseline, oracle, oracle).interval == pytest.approx((1, 1))
    assert gain_share(baseline, baseline, oracle).value == 0


@pytest.mark.parametrize("oracle", [[71.0, 70.0, 70.9], [60.0, 61.0, 60.5], [70.0, 70.0, 70.0]])
def test_a_gain_that_may_be_nothing_is_not_shared(oracle: list[float]) -> None:
    share = gain_share([70.0, 70.0, 70.0], [75.0, 74.0, 76.0], oracle)
    assert (share.value, share.interval) == (None, None)
    assert share.reference.interval is None or share.reference.interval[0] <= 0


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_shares_interval_holds_the_truth_as_often_as_it_says(seeds: int) -> None:
    """Of 400 simulated comparisons 95 %; 2.5 standard deviations of the count are 2.7 points."""
    g, hits = np.random.default_rng(seeds), 0
    for _ in range(400):
        baseline = g.normal(70, 1, seeds)
        share = gain_share(baseline, baseline + g.normal(2, 1, seeds), baseline + g.normal(8, 0.5, seeds))
        assert share.interval is not None
        hits += share.interval[0] <= 0.25 <= share.interval[1]
    assert hits / 400 == pytest.approx(0.95, abs=0.027)
