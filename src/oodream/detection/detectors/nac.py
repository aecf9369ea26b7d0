"""Neuron activation coverage: whether training images have brought each neuron into the state it is in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned

__all__ = ["NAC"]

BASE = 1000.0  # of the logarithm that sets the edges of the intervals


@register("detectors", "nac")
@dataclass
class NAC(BaseDetector):
    """Score = -mean over neurons f of min(share of ID training images in f's interval / `full`, 1): NAC-UE
    (Liu et al. 2024, "Neuron activation coverage") on the features.

    A neuron's state is sigmoid(`alpha` z_f g_f / s), g = sum_c (p_c - 1/C) w_c the gradient of
    KL(uniform || p) by z, p the softmax, w_c the head's rows, and s the mean of |z_f g_f| in training. There
    are `intervals` of states on either side of 1/2, the narrower the nearer to it, with the published code's
    edges. That code has no s, and so another alpha for every network (100 for CIFAR-10, 3000 for ImageNet).
    Coverage of inner layers, which the paper adds, is not here.
    """

    reads: ClassVar = ("logits", "features", "head")
    GRID: ClassVar = {"alpha": (0.1, 0.3, 1.0, 3.0, 10.0), "full": (0.01, 0.05, 0.5)}

    alpha: Annotated[float, Range(0, open="low")] = 1.0
    full: Annotated[float, Range(0, 1, "low")] = 0.05
    intervals: Annotated[int, Range(1)] = 24
    weight_CF_: Tensor = learned()
    size_: Tensor = learned()
    coverage_FI_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.weight_CF_ = head.weight_CF
        self.size_ = self._influence(output).abs().mean().clamp(min=1e-30)
        counts = [column.bincount(minlength=2 * self.intervals) for column in self._interval(output).T]
        self.coverage_FI_ = (torch.stack(counts).double() / (self.full * len(output))).clamp(max=1)

    def _score(self, output: Output) -> Tensor:
        """In [-1, 0]."""
        return -self.coverage_FI_.gather(1, self._interval(output).T).mean(0)

    def _influence(self, output: Output) -> Tensor:
        """z g (N, F)."""
        p_NC = output.logits_BC.softmax(1)
        return output.z_BF * ((p_NC - 1 / p_NC.shape[1]) @ self.weight_CF_)

    def _interval(self, output: Output) -> Tensor:
        """The interval (N, F) of every neuron's state."""
        even = torch.linspace(1, math.sqrt(BASE), self.intervals + 1, dtype=torch.float64)
        lower_I = even.log() / math.log(BASE)  # from 0 to 1/2
        edges = torch.cat([lower_I[1:], 1 - lower_I[1:-1].flip(0)])
        state_NF = (self.alpha / self.size_ * self._influence(output)).sigmoid()
        return torch.bucketize(state_NF, edges, right=True)
