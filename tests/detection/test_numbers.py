"""Intervals of rows whose numbers are 0 or 100 %."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from oodream.detection.numbers import Numbers
from oodream.functional.uncertainty import delong


def test_what_is_perfect_on_few_images_is_not_certain() -> None:
    known, unknown = torch.linspace(0, 1, 60), {"a": torch.linspace(2, 3, 40), "b": torch.linspace(2, 3, 50)}
    numbers = Numbers(known, unknown, torch.arange(60) > 5, seed=0, resamples=20, nearest=False)
    facts = {
        "classifier": "baseline", "detector": "energy", "seed": 0, "n_id": 60, "accuracy": 0.9,
        "calibration_error": 0.1,
    }  # fmt: skip
    rows = {row.dataset: row for row in numbers.rows({"a": "near", "b": "near"}, facts, (0.8, 0.95))}

    def exact(n: int) -> float:
        return float(binomtest(0, n).proportion_ci(method="exact").high)

    assert (rows["a"].auroc, rows["a"].fpr95_id, rows["a"].fpr95_ood) == (1, 0, 0)
    for name, n in (("a", 40), ("b", 50), ("mean", 80)):
        intervals = rows[name].intervals
        assert intervals["fpr95_id"] == pytest.approx((0, exact(n)))
        assert intervals["fpr95_ood"] == pytest.approx((0, exact(60)))
    low, high = (delong(known, scores).interval for scores in unknown.values())
    assert rows["a"].intervals["auroc"] == low
    assert rows["mean"].intervals["auroc"] == pytest.approx(((low[0] + high[0]) / 2, 1))
