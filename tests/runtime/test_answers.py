"""Answers as labels with scores, as pipelines of transformers return them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import ImageClassificationPipeline

from oodream.runtime.answers import Outputs, compared, predictions

NAMES = tuple("abcdefg")


def answered(threshold: float, p_value: float | None = 0.02, classes: int = 7):
    logits_BC = np.random.default_rng(0).normal(size=(20, classes)).astype(np.float32) * 3
    outputs = Outputs(logits_BC=logits_BC, score_B=np.zeros(20), known_B=None)
    p_value_B = None if p_value is None else np.full(20, p_value)
    return logits_BC, list(predictions(NAMES[:classes], outputs, np.full(20, threshold), p_value_B))


def test_labels_of_known_pictures_are_those_of_transformers():
    pipeline = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(NAMES)), num_labels=7))
    )
    logits_BC, found = answered(threshold=1.0)
    for logits_C, prediction in zip(logits_BC, found, strict=True):
        expected = ImageClassificationPipeline.postprocess(
            pipeline, {"logits": torch.from_numpy(logits_C)[None]}, function_to_apply="softmax", top_k=5
        )
        labels = prediction.as_labels()
        assert [list(label) for label in labels] == [["label", "score"]] * 5
        assert [label["label"] for label in labels] == [label["label"] for label in expected]
        assert [label["score"] for label in labels] == pytest.approx([e["score"] for e in expected])
        assert prediction.probability == labels[0]["score"]
        assert labels[0]["label"] == prediction.answer == prediction.likeliest


@pytest.mark.parametrize("p_value", [0.02, None])
def test_unknown_comes_first_and_the_classes_share_the_rest(p_value):
    logits_BC, found = answered(threshold=-1.0, p_value=p_value, classes=4)
    for logits_C, prediction in zip(logits_BC, found, strict=True):
        first, *others = prediction.as_labels()
        rest = p_value or 0.0
        assert first == {"label": "unknown", "score": 1 - rest}
        assert sum(label["score"] for label in (first, *others)) == pytest.approx(1)
        assert [label["score"] for label in others] == pytest.approx(rest * np.sort(softmax(logits_C))[::-1])
        assert prediction.top[0] == (prediction.likeliest, prediction.probability)


def test_of_equal_classes_the_first_is_the_likeliest():
    outputs = Outputs(logits_BC=np.zeros((1, 3), np.float32), score_B=np.zeros(1), known_B=None)
    (prediction,) = predictions(NAMES[:3], outputs, np.ones(1))
    assert (prediction.likeliest, prediction.top[0][0]) == ("a", "a")


@pytest.mark.parametrize(
    ("score", "threshold", "texts"),
    [
        (-5.0, 0.504, ("-5.00", "0.50")),
        (1.0004, 1.0, ("1.0004", "1.0000")),
        (1.001, 1.0049, ("1.00", "1.00")),
        (-0.001, -0.002, ("-0.001", "-0.002")),
        (0.001, -0.001, ("0.001", "-0.001")),
        (1.0 + 2**-52, 1.0, ("1.0000000000000002", "1.0000000000000000")),
        (2e-30, 1e-30, ("2e-30", "1e-30")),
        (float("inf"), 1.0, ("inf", "1.00")),
        (float("nan"), 1.0, ("nan", "1.00")),
    ],
)
def test_a_score_above_the_threshold_is_seen_above_it(score, threshold, texts):
    assert compared(score, threshold) == texts
