"""Generalised entropy of the largest class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Output
from . import BaseDetector, log_probabilities

__all__ = ["GEN"]


@register("detectors", "gen")
@dataclass
class GEN(BaseDetector):
    """Score = sum of p_c^gamma (1 - p_c)^gamma over the `m` largest probabilities (Liu et al. 2023).

    All classes where there are fewer than `m`. Both logarithms are exact for confident outputs, too.
    """

    GRID: ClassVar = {"gamma": (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0), "m": (10, 50, 100, 200, 500, 1000)}

    gamma: Annotated[float, Range(0, open="low")] = 0.1
    m: Annotated[int, Range(1)] = 100

    def _score(self, output: Output) -> Tensor:
        """At least 0."""
        log_p_NC, log_rest_NC = log_probabilities(output.logits_BC)
        m = min(self.m, log_p_NC.shape[1])
        top = log_p_NC.topk(m, dim=1).indices
        return (self.gamma * (log_p_NC + log_rest_NC).gather(1, top)).exp().sum(1)
