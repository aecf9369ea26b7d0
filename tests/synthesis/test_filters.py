"""Filters against probabilities computed by hand, and as the configuration names them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from oodream.config import FilterConfig
from oodream.core.types import Output
from oodream.synthesis.filters import make_filters, passing
from oodream.synthesis.filters.class_drift import ClassDrift
from oodream.synthesis.filters.id_leak import IdLeak

# Probabilities that the baseline gives to (class 0, class 1, class 2), by the image's brightness.
TABLE = torch.tensor([[0.97, 0.02, 0.01], [0.05, 0.90, 0.05], [0.5, 0.25, 0.25], [0.004, 0.995, 0.001]])


class Baseline(nn.Module):
    """Reads the row of TABLE off the first pixel; in training mode it would answer otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(TABLE.log() + 3)

    def forward(self, images_B3HW):
        logits = self.logits[images_B3HW[:, 0, 0, 0].long()]
        return Output(logits_BC=-logits if self.training else logits, z_BF=logits)


IMAGES = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2)
Y = torch.tensor([0, 1, 2, 0])  # of probabilities 0.97, 0.90, 0.25, 0.004


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.95, [False, True, True, True]),
        (0.5, [False, False, True, True]),
        (0.0, [False] * 4),
        (1.0, [True] * 4),
    ],
)
def test_id_leak_drops_what_shows_its_class(threshold, kept):
    assert IdLeak(threshold=threshold)(IMAGES, Y, Baseline()).tolist() == kept


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.0, [True] * 4),
        (0.01, [True, True, True, False]),
        (0.95, [True, False, False, False]),
        (1.0, [False] * 4),
    ],
)
def test_class_drift_drops_what_does_not(threshold, kept):
    assert ClassDrift(threshold=threshold)(IMAGES, Y, Baseline()).tolist() == kept


def test_an_image_that_is_surely_its_class_stays_at_threshold_1():
    """A softmax of 1 exactly."""
    baseline = Baseline()
    baseline.logits.data[0, 0] = 200
    assert IdLeak(threshold=1.0)(IMAGES, Y, baseline).all()


@pytest.mark.parametrize(
    ("config", "kind", "expected"),
    [
        (FilterConfig(), "outlier", [IdLeak(threshold=0.95)]),
        (FilterConfig(), "inlier", [ClassDrift(threshold=0.0)]),
        (FilterConfig(options={"threshold": 0.3}), "outlier", [IdLeak(threshold=0.3)]),
        (FilterConfig(options={"class_drift.threshold": 0.3}), "inlier", [ClassDrift(threshold=0.3)]),
        (FilterConfig(filters=()), "outlier", []),
        (
            FilterConfig(filters=("class_drift", "auto"), options={"id_leak.threshold": 1, "threshold": 0.1}),
            "outlier",
            [ClassDrift(threshold=0.1), IdLeak(threshold=1.0)],
        ),
    ],
)
def test_filters_of_a_configuration(config, kind, expected):
    assert list(make_filters(config, kind).values()) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FilterConfig(filters=("id_lek",)), r"No filter is called 'id_lek'\. Did you mean 'id_leak'"),
        (FilterConfig(options={"threshhold": 0.3}), "threshhold"),
        (
            FilterConfig(options={"class_drift.threshold": 0.3}),
            "class_drift.threshold is of a filter that is not used",
        ),
        (FilterConfig(filters=(), options={"threshold": 0.3}), "no filter to take the options threshold"),
        (
            FilterConfig(options={"threshold": 1.5}),
            "filter 'id_leak': threshold must be between 0 and 1, not 1.5",
        ),
        (FilterConfig(options={"threshold": -0.1}), "threshold must be between 0 and 1"),
        (FilterConfig(options={"threshold": math.nan}), "threshold must be between 0 and 1"),
        (FilterConfig(options={"threshold": "much"}), "threshold cannot be 'much'"),
        (FilterConfig(options={"reason": "none at all"}), "reason"),
    ],
)
def test_filters_that_cannot_be_made_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        make_filters(config, "outlier")


@pytest.mark.parametrize("name", ["id_leak", "confident"])
def test_a_filter_of_outliers_takes_no_inliers(name):
    with pytest.raises(ValueError, match=f"'{name}' is for outliers, and drops what inliers should show"):
        make_filters(FilterConfig(filters=(name,)), "inlier")
    assert make_filters(FilterConfig(filters=(name, "class_drift")), "outlier")


class Answers:
    """A filter that answers, or fails, as it is told."""

    reason = "it is as it is"

    def __init__(self, answer) -> None:
        self.answer = answer

    def __call__(self, images_B3HW, y_B, baseline):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Speechless(Answers):
    reason = ""

    def __init__(self) -> None:
        super().__init__([])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            torch.tensor([True]),
            r"It returns a boolean tensor .*, not torch\.bool of shape \(1,\)",
        ),
        (
            torch.ones(4),
            r"It returns a boolean tensor .*, not torch\.float32 of shape \(4,\)",
        ),
        ([True] * 4, r"It returns a boolean tensor .*, not \[True, True, True, True\]"),
        (KeyError("gone"), r"KeyError: 'gone' \(.*test_filters\.py, line \d+\)\.$"),
    ],
)
def test_an_answer_that_is_no_mask_is_refused_with_the_filters_name(answer, sentence):
    with pytest.raises(ValueError, match=f"^The filter 'mine': {sentence}"):
        passing("mine", Answers(answer), IMAGES, Y, Baseline())


def test_a_filter_without_a_reason_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match=r"^The filter '.*:Speechless': reason says in a sentence why"):
        make_filters(FilterConfig(filters=(f"{__name__}:Speechless",)), "outlier")
