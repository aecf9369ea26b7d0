"""The free energy with a weight for every class."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted


@register("detectors", "weighted_energy")
@dataclass
class WeightedEnergy:
    """Score = -log sum_c w_c exp f_c(x), w > 0 as learnt with the classifier (VOS, Du et al. 2022; DREAM-OOD's phi).

    Any positive slope of phi leaves the order of scores as it is. Train with `--train.loss-options weighted true`.
    """

    weight_C_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> WeightedEnergy:
        """Takes the classes' weights; ValueError when the classifier was not trained with any."""
        if head is None or head.energy_C is None:
            raise ValueError(
                "weighted_energy needs a classifier trained with class weights (--train.loss-options weighted true)."
            )
        self.weight_C_ = checked(head.energy_C, "class weights").clamp(min=0)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in nats, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite logits."""
        if self.weight_C_ is None:
            raise NotFitted(self)
        return -(checked(output.logits_BC, "logits") + self.weight_C_.log()).logsumexp(1)
