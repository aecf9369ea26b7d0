"""Densities of features and of logits through perturbed heads, against those of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned

__all__ = ["WeiPer"]

LOGITS_AT_ONCE = 2**24
FLOORS = (0.01, 0.025)  # added to the densities of features and of perturbed logits


@register("detectors", "weiper")
@dataclass
class WeiPer(BaseDetector):
    """Score = D(z) + lambda_1 D(Wz) - lambda_2 MSP(Wz): WeiPer+KLD (Granz et al. 2024).

    W holds `repeats` copies of the head, every row moved by `delta` times its norm in a random direction (of
    a fixed seed). D compares one image's histogram of values, smoothed over `smooth` bins, with the training
    images' mean histogram, by the symmetric Kullback-Leibler divergence. MSP is the mean over the copies of
    the largest softmax probability.
    """

    reads: ClassVar = ("features", "head")
    GRID: ClassVar = {"delta": (1.8, 2.1, 2.4), "lambda_1": (0.1, 1.0, 2.5)}

    repeats: Annotated[int, Range(1)] = 100
    delta: Annotated[float, Range(0)] = 2.1
    bins: Annotated[int, Range(2)] = 100
    smooth: Annotated[int, Range(1)] = 20
    lambda_1: Annotated[float, Range(0)] = 1.0
    lambda_2: Annotated[float, Range(0)] = 1.0
    heads_KF_: Tensor = learned()
    biases_K_: Tensor = learned()
    range_22_: Tensor = learned()
    typical_2B_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        weight_CF, z_NF = head.weight_CF, output.z_BF
        g = torch.Generator().manual_seed(0)
        noise = torch.randn(self.repeats, *weight_CF.shape, generator=g, dtype=torch.float64)
        moved = weight_CF + self.delta * F.normalize(noise, dim=2) * weight_CF.norm(dim=1, keepdim=True)
        self.heads_KF_, self.biases_K_ = moved.flatten(0, 1), head.bias_C.repeat(self.repeats)
        parts = self._parts(len(z_NF))
        extremes = torch.stack([torch.stack(self._logits(z_NF[part]).aminmax()) for part in parts])
        logits_range_2 = torch.stack([extremes[:, 0].amin(), extremes[:, 1].amax()])
        self.range_22_ = torch.stack([torch.stack(z_NF.aminmax()), logits_range_2])
        typical = [torch.zeros(self.bins, dtype=torch.float64) for _ in range(2)]
        for part in parts:
            values = z_NF[part], self._logits(z_NF[part])
            for mean, values_NV, range_2 in zip(typical, values, self.range_22_, strict=True):
                mean += self._histogram(values_NV, range_2).sum(0) / len(z_NF)
        self.typical_2B_ = torch.stack(typical)

    def _score(self, output: Output) -> Tensor:
        """A divergence in nats, less a probability."""
        scores = []
        for part in self._parts(len(output)):
            logits = self._logits(output.z_BF[part])
            densities = zip(
                (output.z_BF[part], logits), self.range_22_, self.typical_2B_, FLOORS, strict=True
            )
            of_features, of_logits = (
                self._divergence(self._histogram(values, range_2), typical_B, floor)
                for values, range_2, typical_B, floor in densities
            )
            msp = logits.unflatten(1, (self.repeats, -1)).softmax(2).amax(2).mean(1)
            scores.append(of_features + self.lambda_1 * of_logits - self.lambda_2 * msp)
        return torch.cat(scores)

    def _parts(self, n: int) -> list[slice]:
        rows = max(1, LOGITS_AT_ONCE // len(self.heads_KF_))
        return [slice(start, start + rows) for start in range(0, n, rows)]

    def _logits(self, z_NF: Tensor) -> Tensor:
        return z_NF @ self.heads_KF_.T + self.biases_K_

    def _histogram(self, values_NV: Tensor, range_2: Tensor) -> Tensor:
        """The share of each row's values in each bin (N, bins); values out of the range are in none."""
        low, high = range_2
        at = ((values_NV - low) / (high - low).clamp(min=1e-30) * self.bins).floor().long()
        at = torch.where(values_NV == high, self.bins - 1, at)
        inside = ((at >= 0) & (at < self.bins)).double()
        empty = values_NV.new_zeros(len(values_NV), self.bins)
        return empty.scatter_add(1, at.clamp(0, self.bins - 1), inside) / values_NV.shape[1]

    def _divergence(self, q_NB: Tensor, p_B: Tensor, floor: float) -> Tensor:
        left = (self.smooth - 1) // 2
        padded = F.pad(q_NB[:, None], (left, self.smooth - 1 - left), mode="replicate")
        q_NB = F.avg_pool1d(padded, self.smooth, stride=1)[:, 0] + floor
        q_NB, p_B = q_NB / q_NB.sum(1, keepdim=True), (p_B + floor) / (p_B + floor).sum()
        return ((p_B - q_NB) * (p_B.log() - q_NB.log())).sum(1)
