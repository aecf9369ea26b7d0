"""Generalised entropy of the largest class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import Fixed, checked, log_probabilities


@register("detectors", "gen")
@dataclass
class GEN(Fixed):
    """Score = sum of p_c^gamma (1 - p_c)^gamma over the `m` largest probabilities (Liu et al. 2023).

    All classes where there are fewer than `m`. Both logarithms are exact for confident outputs, too.
    """

    GRID: ClassVar = {"gamma": (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0), "m": (10, 50, 100, 200, 500, 1000)}

    gamma: float = 0.1
    m: int = 100

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at least 0, higher = OOD; ValueError for NaN or infinite logits."""
        log_p_NC, log_rest_NC = log_probabilities(checked(output.logits_BC, "logits"))
        m = min(self.m, log_p_NC.shape[1])
        top = log_p_NC.topk(m, dim=1).indices
        return (self.gamma * (log_p_NC + log_rest_NC).gather(1, top)).exp().sum(1)
