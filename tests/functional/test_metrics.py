from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from torch import Tensor

from oodream.core import seeding
from oodream.functional.metrics import (
    METRICS,
    augrc,
    aupr_in,
    aupr_out,
    aupr_trapezoid,
    aurc,
    auroc,
    autc,
    bootstrap,
    calibration_error,
    fpr95_id,
    fpr95_ood,
    fpr_at,
    interval,
    mean_roc,
    measure,
    oscr,
    roc,
)

scores = st.lists(st.integers(-6, 6), min_size=1, max_size=45).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def brute_fpr95_id(id_scores: np.ndarray, ood_scores: np.ndarray) -> float:
    for threshold in sorted(set(id_scores.tolist() + ood_scores.tolist())):
        if 100 * (id_scores <= threshold).sum() >= 95 * len(id_scores):
            return float((ood_scores <= threshold).mean())
    raise AssertionError


def brute_fpr95_ood(id_scores: np.ndarray, ood_scores: np.ndarray) -> float:
    for threshold in sorted(set(id_scores.tolist() + ood_scores.tolist()), reverse=True):
        if 100 * (ood_scores >= threshold).sum() >= 95 * len(ood_scores):
            return float((id_scores >= threshold).mean())
    raise AssertionError


def check_against_oracle(id_N: Tensor, ood_M: Tensor) -> None:
    id_scores, ood_scores = id_N.numpy(), ood_M.numpy()
    pooled = np.concatenate([id_scores, ood_scores])
    is_ood = np.concatenate([np.zeros(len(id_scores)), np.ones(len(ood_scores))])
    expected = {
        "auroc": roc_auc_score(is_ood, pooled),
        "aupr_out": average_precision_score(is_ood, pooled),
        "aupr_in": average_precision_score(1 - is_ood, -pooled),
        "fpr95_id": brute_fpr95_id(id_scores, ood_scores),
        "fpr95_ood": brute_fpr95_ood(id_scores, ood_scores),
    }
    assert measure(id_N, ood_M) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(scores, scores)
def test_small_sets_full_of_ties_agree_with_scikit_learn_and_loops(id_N: Tensor, ood_M: Tensor) -> None:
    check_against_oracle(id_N, ood_M)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (20, 400), (399, 21)])
def test_continuous_scores_agree_with_scikit_learn_and_loops(n: int, m: int) -> None:
    g = torch.Generator().manual_seed(n)
    check_against_oracle(
        torch.randn(n, generator=g, dtype=torch.float64), torch.randn(m, generator=g, dtype=torch.float64) + 1
    )


@settings(max_examples=40)
@given(scores, scores)
def test_any_strictly_increasing_transform_changes_nothing(id_N: Tensor, ood_M: Tensor) -> None:
    assert measure(id_N.exp() * 3 - 7, ood_M.exp() * 3 - 7) == measure(id_N, ood_M)


@settings(max_examples=40)
@given(scores, scores)
def test_swapping_roles_mirrors_and_everything_is_a_share(id_N: Tensor, ood_M: Tensor) -> None:
    values, swapped, mirrored = measure(id_N, ood_M), measure(ood_M, id_N), measure(-ood_M, -id_N)
    assert swapped["auroc"] == pytest.approx(1 - values["auroc"], abs=1e-12)
    assert mirrored["fpr95_id"] == pytest.approx(values["fpr95_ood"])
    assert mirrored["aupr_in"] == pytest.approx(values["aupr_out"])
    assert all(0 <= value <= 1 for value in values.values())


def test_the_two_fpr95_differ_on_an_example_worked_by_hand() -> None:
    # 20 ID scores 1..20: 19 of them are accepted at t = 19, and so are 2 of the 4 OOD scores.
    # All 4 OOD scores (3 would be 75 %) are flagged from t = 18 on, and so are the ID scores 18, 19 and 20.
    id_N, ood_M = torch.arange(1.0, 21), torch.tensor([18.0, 19.0, 30.0, 40.0])
    assert fpr95_id(id_N, ood_M) == pytest.approx(2 / 4)
    assert fpr95_ood(id_N, ood_M) == pytest.approx(3 / 20)


@pytest.mark.parametrize("n", [20, 40, 60, 100, 140, 1000])
def test_95_percent_reached_exactly_is_reached(n: int) -> None:
    id_N = torch.arange(n).double()
    threshold = n * 95 // 100 - 1
    assert fpr95_id(id_N, torch.tensor([threshold + 0.5])) == 0
    assert fpr95_id(id_N, torch.tensor([float(threshold)])) == 1


def test_constant_scores_have_defined_values() -> None:
    expected = {"auroc": 0.5, "aupr_out": 0.25, "aupr_in": 0.75, "fpr95_id": 1.0, "fpr95_ood": 1.0}
    assert measure(torch.zeros(30), torch.zeros(10)) == pytest.approx(expected)


def test_perfect_separation_and_infinite_scores() -> None:
    id_N, ood_M = torch.tensor([-torch.inf, 0.0]), torch.tensor([1.0, torch.inf])
    assert [metric(id_N, ood_M) for metric in (auroc, aupr_out, aupr_in, fpr95_id, fpr95_ood)] == [
        1,
        1,
        1,
        0,
        0,
    ]


@pytest.mark.parametrize("call", [measure, roc, lambda a, b: bootstrap(a, b, seed=0, resamples=2)])
def test_nan_and_empty_sets_are_refused_by_name(call: Callable[[Tensor, Tensor], object]) -> None:
    good, bad, none = torch.zeros(3), torch.tensor([0.0, torch.nan]), torch.zeros(0)
    for pair, message in [
        ((bad, good), "ID scores contain NaN"),
        ((good, bad), "OOD scores contain NaN"),
        ((none, good), "no ID scores"),
        ((good, none), "no OOD scores"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(*pair)


@pytest.mark.parametrize(
    ("n", "m"),
    [(37, 23), pytest.param(20_000, 30_000, id="too many scores for one chunk")],
)
def test_bootstrap_equals_measuring_explicit_resamples(n: int, m: int) -> None:
    """The counts of a resample give the metrics of the resampled scores themselves, whatever the chunk."""
    g = torch.Generator().manual_seed(0)
    id_N = torch.randn(n, generator=g).round(decimals=1)
    ood_M = (torch.randn(m, generator=g) + 1).round(decimals=1)
    drawn = bootstrap(id_N, ood_M, seed=5, resamples=8, stream="a")
    id_g, ood_g = seeding.generator(5, "bootstrap-id"), seeding.generator(5, "bootstrap-ood", "a")
    for r in range(8):
        id_pick = torch.randint(n, (n,), generator=id_g)
        ood_pick = torch.randint(m, (m,), generator=ood_g)
        assert {name: drawn[name][r].item() for name in METRICS} == pytest.approx(
            measure(id_N[id_pick], ood_M[ood_pick])
        )


def test_bootstrap_shares_id_resamples_between_sets_and_nothing_else() -> None:
    id_N = torch.randn(50, generator=torch.Generator().manual_seed(1))
    at_zero = [
        bootstrap(id_N, torch.zeros(m), seed=3, resamples=20, stream=f"set {m}")["auroc"] for m in (7, 400)
    ]
    torch.testing.assert_close(*at_zero, rtol=0, atol=1e-15)

    ood_M = id_N + 0.5
    a, again, b = (bootstrap(id_N, ood_M, seed=3, resamples=20, stream=stream)["auroc"] for stream in "aab")
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    assert not torch.equal(a, bootstrap(id_N, ood_M, seed=4, resamples=20, stream="a")["auroc"])


@pytest.mark.parametrize(("share", "n"), [(0, 40), (1, 40), (0, 200), (1, 1)])
def test_a_share_of_none_or_all_has_the_exact_interval(share: int, n: int) -> None:
    values = torch.full((100,), float(share), dtype=torch.float64)
    exact = binomtest(share * n, n).proportion_ci(method="exact")
    assert interval(values, n) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert interval(values) == (share, share)
    assert interval(torch.tensor([0.0, 0.1, 0.0]), n) != interval(torch.zeros(3), n)


def test_bootstrap_interval_covers_the_truth() -> None:
    truth = 0.5 * (1 + math.erf(0.5))  # Phi(1 / sqrt 2): means one apart
    covered = 0
    for i in range(100):
        g = torch.Generator().manual_seed(i)
        low, high = interval(
            bootstrap(
                torch.randn(150, generator=g), torch.randn(100, generator=g) + 1, seed=i, resamples=200
            )["auroc"]
        )
        covered += low <= truth <= high
    assert 87 <= covered <= 99


def test_roc_is_thin_and_lies_on_the_full_curve() -> None:
    g = torch.Generator().manual_seed(0)
    id_N, ood_M = torch.randn(3000, generator=g).double(), torch.randn(2000, generator=g).double() + 1
    fpr, tpr = roc(id_N, ood_M)
    assert len(fpr) == len(tpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    full_fpr, full_tpr, _ = roc_curve(
        [0] * 3000 + [1] * 2000, torch.cat([id_N, ood_M]).numpy(), drop_intermediate=False
    )
    full = set(zip(full_fpr.round(9).tolist(), full_tpr.round(9).tolist(), strict=True))
    assert set(zip(fpr.numpy().round(9).tolist(), tpr.numpy().round(9).tolist(), strict=True)) <= full
    assert torch.trapezoid(tpr, fpr).item() == pytest.approx(auroc(id_N, ood_M), abs=1e-3)


def test_roc_of_constant_scores_is_the_diagonal() -> None:
    fpr, tpr = roc(torch.zeros(5), torch.zeros(4))
    assert fpr.tolist() == tpr.tolist() == [0, 1]


def test_the_area_of_a_mean_curve_is_the_mean_auroc() -> None:
    g = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(n, generator=g), torch.randn(90, generator=g) + shift)
        for n, shift in ((300, 2), (50, 0))
    ]
    fpr, tpr = mean_roc(pairs)
    mean = sum(auroc(*pair) for pair in pairs) / 2
    assert torch.trapezoid(tpr, fpr).item() == pytest.approx(mean, abs=2e-3)
    assert (fpr[0], fpr[-1], tpr[-1]) == (0, 1, 1)
    single_fpr, single_tpr, _ = roc_curve(
        [0] * 300 + [1] * 90, torch.cat(pairs[0]).numpy(), drop_intermediate=False
    )
    fpr, tpr = mean_roc(pairs[:1])
    assert tpr.numpy() == pytest.approx(np.interp(fpr.numpy(), single_fpr, single_tpr), abs=1e-9)


def test_a_mean_of_no_curves_is_refused() -> None:
    with pytest.raises(ValueError, match="one curve at least"):
        mean_roc([])


def brute_nearest(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of negatives at or below the threshold whose recall of positives (low values) is nearest to 95 %.

    Thresholds ascend until all positives are taken in; of two as near the later one counts.
    """
    best, share = np.inf, np.nan
    for threshold in sorted({*positive.tolist(), *negative.tolist()}):
        recall = (positive <= threshold).sum()
        if abs(20 * recall - 19 * len(positive)) <= best:
            best, share = abs(20 * recall - 19 * len(positive)), (negative <= threshold).mean()
        if recall == len(positive):
            return float(share)
    raise AssertionError


@given(scores, scores)
@settings(max_examples=150)
def test_the_nearest_fpr95_agrees_with_a_loop(id_N: Tensor, ood_M: Tensor) -> None:
    values = measure(id_N, ood_M, fpr95_nearest=True)
    assert values["fpr95_id"] == pytest.approx(brute_nearest(id_N.numpy(), ood_M.numpy()))
    assert values["fpr95_ood"] == pytest.approx(brute_nearest(-ood_M.numpy(), -id_N.numpy()))
    assert values["auroc"] == measure(id_N, ood_M)["auroc"]


@settings(max_examples=40)
@given(scores, scores, st.sampled_from([0.05, 0.5, 0.8, 0.95, 0.99, 1.0]))
def test_the_fpr_at_any_tpr_agrees_with_a_loop(id_N: Tensor, ood_M: Tensor, tpr: float) -> None:
    levels = sorted(set(id_N.tolist() + ood_M.tolist()))
    accept = next(t for t in levels if (id_N <= t).double().mean() >= tpr - 1e-12)
    flag = next(t for t in reversed(levels) if (ood_M >= t).double().mean() >= tpr - 1e-12)
    assert fpr_at(id_N, ood_M, tpr, positive="id") == pytest.approx((ood_M <= accept).double().mean().item())
    assert fpr_at(id_N, ood_M, tpr, positive="ood") == pytest.approx((id_N >= flag).double().mean().item())
    assert fpr_at(id_N, ood_M, 0.95, positive="id") == pytest.approx(fpr95_id(id_N, ood_M))
    assert fpr_at(id_N, ood_M, 0.95, positive="ood") == pytest.approx(fpr95_ood(id_N, ood_M))


@settings(max_examples=40)
@given(scores, scores)
def test_the_trapezoid_area_is_scikit_learns(id_N: Tensor, ood_M: Tensor) -> None:
    pooled = torch.cat([id_N, ood_M]).numpy()
    is_ood = np.concatenate([np.zeros(len(id_N)), np.ones(len(ood_M))])
    for positive, truth, score in (("ood", is_ood, pooled), ("id", 1 - is_ood, -pooled)):
        precision, recall, _ = precision_recall_curve(truth, score)
        assert aupr_trapezoid(id_N, ood_M, positive=positive) == pytest.approx(
            auc(recall, precision), abs=1e-12
        )


@settings(max_examples=40)
@given(scores, scores)
def test_autc_is_the_mean_error_over_thresholds(id_N: Tensor, ood_M: Tensor) -> None:
    low, high = torch.cat([id_N, ood_M]).aminmax()
    if low == high:
        assert autc(id_N, ood_M) == 0.5
        return
    t_K = (torch.arange(12_000, dtype=torch.float64) + 0.5) / 12_000 * (high - low) + low
    false = (id_N[:, None] > t_K).double().mean(0) + (ood_M[:, None] <= t_K).double().mean(0)
    assert autc(id_N, ood_M) == pytest.approx(0.5 * false.mean().item(), abs=1e-3)


@settings(max_examples=40)
@given(scores, scores, st.integers(0, 2**30))
def test_oscr_counts_pairs_of_a_right_id_image_and_an_ood_image(
    id_N: Tensor, ood_M: Tensor, seed: int
) -> None:
    right_N = torch.rand(len(id_N), generator=torch.Generator().manual_seed(seed)) < 0.6
    above = (ood_M > id_N[:, None]).double() + 0.5 * (ood_M == id_N[:, None]).double()
    assert oscr(id_N, ood_M, right_N) == pytest.approx((above * right_N[:, None]).mean().item(), abs=1e-12)
    assert oscr(id_N, ood_M, right_N) <= min(auroc(id_N, ood_M), right_N.double().mean().item()) + 1e-12
    assert oscr(id_N, ood_M, torch.ones_like(right_N)) == pytest.approx(auroc(id_N, ood_M))


def test_the_calibration_error_of_known_confidences() -> None:
    # Two classes: confidence 0.9 and right half of the time; confidence 0.6 and always right.
    sure, unsure = np.log([0.9, 0.1]), np.log([0.6, 0.4])
    logits = torch.tensor(np.array([sure] * 4 + [unsure] * 4))
    y = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0])
    assert calibration_error(logits, y) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert calibration_error(torch.tensor([[1e4, 0.0]]), torch.tensor([0])) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autc(torch.tensor([0.0, torch.inf]), torch.zeros(2)), "Infinite scores"),
        (lambda: oscr(torch.zeros(0), torch.zeros(2), torch.zeros(0, dtype=torch.bool)), "no ID scores"),
        (lambda: fpr_at(torch.zeros(2), torch.zeros(2), 0.0, positive="id"), "tpr lies in"),
        (lambda: fpr_at(torch.zeros(2), torch.zeros(2), 0.9, positive="both"), "id or ood"),
    ],
)
def test_what_has_no_value_is_refused(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Wrong answers

answers = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=7).map(
    lambda pairs: (torch.tensor([float(s) for s, _ in pairs]), torch.tensor([right for _, right in pairs]))
)


def brute_areas(score_N: Tensor, right_N: Tensor) -> tuple[float, float]:
    """AURC, and AUGRC by trapezoids from (0, 0), averaged over all orders that sort the scores."""
    risks, generalized = [], []
    for order in itertools.permutations(range(len(score_N))):
        if any(score_N[a] > score_N[b] for a, b in itertools.pairwise(order)):
            continue
        wrong, risk, curve = 0, [], [0.0]
        for accepted, row in enumerate(order, 1):
            wrong += not right_N[row]
            risk.append(wrong / accepted)
            curve.append(wrong / len(order))
        risks.append(np.mean(risk))
        generalized.append(auc(np.linspace(0, 1, len(curve)), curve))
    return float(np.mean(risks)), float(np.mean(generalized))


@settings(max_examples=40)
@given(answers)
def test_both_areas_are_the_mean_over_the_orders_of_ties(pair: tuple[Tensor, Tensor]) -> None:
    assert (aurc(*pair), augrc(*pair)) == pytest.approx(brute_areas(*pair), abs=1e-12)


@pytest.mark.parametrize("n", [7, 400])
def test_areas_of_distinct_scores_are_sums_over_coverages(n: int) -> None:
    g = torch.Generator().manual_seed(n)
    score_N, right_N = torch.randn(n, generator=g), torch.rand(n, generator=g) < 0.7
    wrong = (~right_N[score_N.argsort()]).numpy().cumsum()
    assert aurc(score_N, right_N) == pytest.approx(np.mean(wrong / np.arange(1, n + 1)))
    curve = np.concatenate([[0], wrong / n])
    assert augrc(score_N, right_N) == pytest.approx(auc(np.linspace(0, 1, n + 1), curve))


@settings(max_examples=60)
@given(answers)
def test_a_better_order_lowers_both_and_the_best_augrc_is_known(pair: tuple[Tensor, Tensor]) -> None:
    """Scores that rank every wrong answer behind every right one are the best, and the reverse the worst."""
    score_N, right_N = pair
    wrong = 1 - right_N.double().mean().item()
    best, worst = (~right_N).double(), right_N.double()
    for area in (aurc, augrc):
        assert area(best, right_N) - 1e-12 <= area(score_N, right_N) <= area(worst, right_N) + 1e-12
    assert augrc(best, right_N) == pytest.approx(wrong**2 / 2)
    assert augrc(worst, right_N) == pytest.approx(wrong - wrong**2 / 2)
    assert aurc(torch.zeros(len(right_N)), right_N) == pytest.approx(wrong), "no order: the error rate"
    increasing = 3 * score_N.exp() - 7
    assert (aurc(increasing, right_N), augrc(increasing, right_N)) == (aurc(*pair), augrc(*pair))


@pytest.mark.parametrize("area", [aurc, augrc])
def test_areas_of_nothing_and_of_nan_are_refused(area: Callable[[Tensor, Tensor], float]) -> None:
    with pytest.raises(ValueError, match="There are no ID scores"):
        area(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="contain NaN"):
        area(torch.tensor([torch.nan]), torch.tensor([True]))
