"""Prediction sets against a loop and against mapie, their coverage by simulation, and refusals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import (
    APSConformityScore,
    BaseClassificationScore,
    LACConformityScore,
    RAPSConformityScore,
)
from sklearn.base import BaseEstimator, ClassifierMixin

from oodream.runtime import prediction_sets as module
from oodream.runtime.prediction_sets import METHODS, Standing, prediction_sets, set_limit, standing

N, CLASSES, ALPHA = 400, 9, 0.1


def images(n: int, seed: int, sharp: float = 1.5):
    """Logits, and classes drawn from their softmax at another temperature."""
    g = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(n, CLASSES, generator=g)
    return logits, torch.multinomial((0.8 * logits).softmax(1), 1, generator=g)[:, 0]


def nonconformity(p_C: list[float], c: int, method: str) -> float:
    """By the papers' formulas, with a loop."""
    likelier = [q for q in p_C if q > p_C[c]]
    if method == "lac":
        return 1 - p_C[c]
    penalty = 0.01 * max(0, len(likelier) + 1 - 5) if method == "raps" else 0.0
    return sum(likelier) + p_C[c] / 2 + penalty


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_those_of_a_loop(method):
    (held_logits, y), (logits, _) = images(N, 0), images(60, 1)
    conforming = sorted(
        nonconformity(p_C, c, method)
        for p_C, c in zip(held_logits.double().softmax(1).tolist(), y.tolist(), strict=True)
    )
    limit = conforming[-(-(N + 1) * 9 // 10) - 1]
    assert set_limit(standing(held_logits, y), ALPHA, method) == pytest.approx(limit, abs=1e-12)
    sets = prediction_sets(logits, limit + 1e-9, method)
    for p_C, found in zip(logits.double().softmax(1).tolist(), sets, strict=True):
        inside = [c for c in range(CLASSES) if nonconformity(p_C, c, method) <= limit + 1e-9]
        best = max(range(CLASSES), key=p_C.__getitem__)
        assert found.tolist() == sorted(inside or [best], key=lambda c: -p_C[c])


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose images are their probabilities."""

    def __init__(self):
        self.classes_ = np.arange(CLASSES)

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return X

    def predict(self, X):
        return X.argmax(1)

    def __sklearn_is_fitted__(self):
        return True


class Half(np.random.RandomState):
    """Draws one half for the share of a class's own probability that counts."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.full(size, 0.5)


ORACLES: dict[str, type[BaseClassificationScore]] = {
    "lac": LACConformityScore,
    "aps": APSConformityScore,
    "raps": RAPSConformityScore,
}


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_mapies(method, monkeypatch):
    """mapie finds RAPS's two numbers on a part of the held-out images, and its limit on the others."""
    (held_logits, y), (logits, _) = images(N, 2), images(300, 3)
    held, probabilities = (x.double().softmax(1).numpy() for x in (held_logits, logits))
    score = ORACLES[method]()
    mapie = SplitConformalClassifier(
        Given(),
        confidence_level=1 - ALPHA,
        conformity_score=score,
        prefit=True,
        random_state=Half(0),
    ).conformalize(held, y.numpy())
    options = {} if method == "lac" else {"include_last_label": "randomized"}
    expected = mapie.predict_set(probabilities, conformity_score_params=options)[1][:, :, 0]
    if method == "raps":
        rest = ~(held[:, None] == score.X_raps).all(2).any(1)
        held_logits, y = held_logits[rest], y[rest]
        monkeypatch.setattr(module, "PENALTY", float(score.lambda_star))
        monkeypatch.setattr(module, "FREE", float(score.k_star[0]))
    limit = set_limit(standing(held_logits, y), ALPHA, method)
    assert limit == pytest.approx(float(score.quantiles_[0]))
    for row, found in zip(expected, prediction_sets(logits, limit, method), strict=True):
        assert set(found.tolist()) == set(np.flatnonzero(row)) or (not row.any() and len(found) == 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_true_class_is_missing_as_rarely_as_said(method):
    """Over 300 draws of 60 held-out images, each with 40 unseen ones."""
    missing = []
    for draw in range(300):
        logits, y = images(100, 1000 + draw)
        sets = prediction_sets(logits[60:], set_limit(standing(logits[:60], y[:60]), ALPHA, method), method)
        missing += [label not in found for label, found in zip(y[60:].tolist(), sets, strict=True)]
    rate, spread = np.mean(missing), np.std(np.reshape(missing, (300, 40)).mean(1)) / 300**0.5
    assert rate <= ALPHA + 3 * spread
    assert rate >= ALPHA / 2, "not by taking all classes"


def test_only_where_the_true_class_stands_counts():
    logits, y = images(50, 4)
    kept = standing(logits, y)
    order = logits.argsort(1, descending=True)
    assert kept.rank_N.tolist() == [row.tolist().index(c) for row, c in zip(order, y.tolist(), strict=True)]
    assert np.abs(kept.above_N[kept.rank_N == 0]).max() < 1e-15
    shuffled = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0))
    renamed = standing(logits[:, shuffled], shuffled.argsort()[y])
    for method in METHODS:
        assert set_limit(renamed, ALPHA, method) == pytest.approx(set_limit(kept, ALPHA, method), abs=1e-12)


def test_sets_are_never_empty_and_grow_as_alpha_falls():
    logits, y = images(N, 5)
    for method in METHODS:
        sizes = [
            [len(x) for x in prediction_sets(logits, set_limit(standing(logits, y), alpha, method), method)]
            for alpha in (0.9, 0.3, 0.1, 0.01)
        ]
        assert min(map(min, sizes)) >= 1
        assert all(torch.tensor(a).le(torch.tensor(b)).all() for a, b in pairwise(sizes))
        assert sum(sizes[-1]) > sum(sizes[0])
        assert {len(x) for x in prediction_sets(logits, -1.0, method)} == {1}


def test_what_is_refused():
    kept = standing(*images(8, 6))
    with pytest.raises(ValueError, match=r"no prediction sets by 'rasp', but by lac, aps, raps"):
        set_limit(kept, ALPHA, "rasp")
    with pytest.raises(
        ValueError, match=r"at most 0\.1 of known images take 9 held-out images, and there are 8: .* 0\.112"
    ):
        set_limit(kept, ALPHA, "lac")
    set_limit(kept, 0.112, "lac")
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        set_limit(kept, 1.0, "lac")
    empty = torch.zeros(0, dtype=torch.float64)
    with pytest.raises(ValueError, match="there are 0"):
        set_limit(Standing(probability_N=empty, above_N=empty, rank_N=empty), ALPHA, "lac")
