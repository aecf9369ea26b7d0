"""What a guard promises and accepts at each alpha, against the guard itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oodream.data.builtin import digits
from oodream.deploy.guard import Guard
from oodream.deploy.tradeoff import Scored, alphas, tradeoff
from tests.helpers.guarded import SIZE, classifier, clothes, guard

UNKNOWN = digits(SIZE, 200, 0)


def scored(one: Guard) -> dict[str, Scored]:
    logits_BC = classifier().extractor()(UNKNOWN).logits_BC
    return {"digits": Scored(score_N=one.scores(UNKNOWN).numpy(), likeliest_N=logits_BC.argmax(1).numpy())}


@pytest.fixture(scope="module")
def per_class() -> Guard:
    return guard(per_class=True)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_it_accepts_what_the_guard_at_that_alpha_accepts(alpha):
    moved, result = guard().at(alpha), tradeoff(guard(), alpha, scored(guard()))
    accepted = [not one.flagged for one in moved.predict(UNKNOWN)]
    assert (result.unknown["digits"].accepted, result.unknown["digits"].n) == (sum(accepted), 200)
    assert result.guarantee == str(moved.guarantee)
    assert result.threshold == moved.threshold
    assert result.known.accepted == sum(not one.flagged for one in moved.predict(clothes()[1]))


def test_thresholds_of_classes_are_those_of_the_guard(per_class):
    moved, result = per_class.at(0.1), tradeoff(per_class, 0.1, scored(per_class))
    assert result.unknown["digits"].accepted == sum(not one.flagged for one in moved.predict(UNKNOWN))
    assert result.threshold_C.tolist() == moved.threshold_C.tolist()
    assert len(set(result.threshold_C.tolist())) == len(moved.names), "each class has a threshold of its own"
    with pytest.raises(ValueError, match="scores must come with classes"):
        tradeoff(per_class, 0.1, {"digits": Scored(score_N=np.zeros(2))})


def test_every_rate_can_be_asked_for():
    rates = alphas(guard(alpha=0.0321))
    assert rates == sorted(set(rates))
    assert 0.0321 in rates, "its own"
    assert {0.01, 0.05, 0.1, 0.5} <= set(rates)
    for rate in rates:
        assert guard().at(rate).guarantee.alpha == rate
    with pytest.raises(ValueError, match="can guarantee"):
        guard().at(rates[0] / 2)


def test_more_false_alarms_accept_less():
    results = [tradeoff(guard(), rate, scored(guard())) for rate in alphas(guard())]
    accepted = [result.unknown["digits"].share for result in results]
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[0] > accepted[-1]
    assert all(1 - result.known.share <= result.alpha for result in results)
    assert torch.tensor([result.threshold for result in results]).diff().max() <= 0
