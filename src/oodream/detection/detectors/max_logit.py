"""The maximum logit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import Fixed, checked


@register("detectors", "max_logit")
@dataclass
class MaxLogit(Fixed):
    """Score = -max_c f_c(x) (Hendrycks et al. 2022, "Scaling out-of-distribution detection for real-world settings")."""

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in logits, higher = OOD; ValueError for NaN or infinite logits."""
        return -checked(output.logits_BC, "logits").amax(1)
