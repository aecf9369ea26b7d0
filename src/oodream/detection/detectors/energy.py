"""The free energy of the logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import BaseDetector

__all__ = ["Energy"]


@register("detectors", "energy")
@dataclass
class Energy(BaseDetector):
    """Score = E(x) = -log sum_c exp f_c(x) (Liu et al. 2020, equation 4 with temperature 1)."""

    def _score(self, output: Output) -> Tensor:
        """In nats."""
        return -output.logits_BC.logsumexp(1)
