"""The maximum logit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import BaseDetector

__all__ = ["MaxLogit"]


@register("detectors", "max_logit")
@dataclass
class MaxLogit(BaseDetector):
    """Score = -max_c f_c(x) (Hendrycks et al. 2022, "Scaling out-of-distribution detection for real-world
    settings").
    """

    def _score(self, output: Output) -> Tensor:
        """In logits."""
        return -output.logits_BC.amax(1)
