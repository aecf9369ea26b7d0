"""The free energy with a weight for every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned

__all__ = ["WeightedEnergy"]


@register("detectors", "weighted_energy")
@dataclass
class WeightedEnergy(BaseDetector):
    """Score = -log sum_c w_c exp f_c(x), w > 0 as learned with the classifier (VOS, Du et al. 2022;
    DREAM-OOD's phi).

    Any positive slope of phi leaves the order of scores as it is. Train with `--regularize.loss-options
    weighted=true`.
    """

    reads: ClassVar = ("logits", "class weights")

    weight_C_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        assert head.energy_C is not None  # it is read
        self.weight_C_ = head.energy_C.clamp(min=0)

    def _score(self, output: Output) -> Tensor:
        """In nats."""
        return -(output.logits_BC + self.weight_C_.log()).logsumexp(1)
