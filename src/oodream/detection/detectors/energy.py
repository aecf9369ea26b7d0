"""The free energy of the logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import Fixed, checked


@register("detectors", "energy")
@dataclass
class Energy(Fixed):
    """Score = E(x) = -log sum_c exp f_c(x) (Liu et al. 2020, equation 4 with temperature 1)."""

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in nats, higher = OOD; ValueError for NaN or infinite logits."""
        return -checked(output.logits_BC, "logits").logsumexp(1)
