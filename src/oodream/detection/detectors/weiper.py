"""Densities of features and of logits through perturbed heads, against those of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, needed

COMPUTED_TOGETHER = 2**24  # perturbed logits


@register("detectors", "weiper")
@dataclass
class WeiPer:
    """Score = D(z) + lambda_1 D(Wz) - lambda_2 MSP(Wz): WeiPer+KLD (Granz et al. 2024).

    W holds `repeats` copies of the head, every row moved by `delta` times its norm in a random direction (of a fixed seed). D
    compares one image's histogram of values, smoothed over `smooth` bins, with the training images' mean histogram, by the
    symmetric Kullback-Leibler divergence; MSP is the mean over the copies of the largest softmax probability.
    """

    GRID: ClassVar = {"delta": (1.8, 2.1, 2.4), "lambda_1": (0.1, 1.0, 2.5)}

    repeats: int = 100
    delta: float = 2.1
    bins: int = 100
    smooth: int = 20
    lambda_1: float = 1.0
    lambda_2: float = 1.0
    heads_KF_: Tensor | None = fitted()
    biases_K_: Tensor | None = fitted()
    range_22_: Tensor | None = fitted()
    typical_2B_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> WeiPer:
        """Learns ranges and mean histograms; ValueError for NaN, no head, or no samples."""
        weight_CF, bias_C = needed(head, self)
        z_NF = checked(output.z_BF, "features")
        if not len(z_NF):
            raise ValueError("WeiPer has no training sample.")
        noise = torch.randn(
            self.repeats, *weight_CF.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        moved = weight_CF + self.delta * F.normalize(noise, dim=2) * weight_CF.norm(dim=1, keepdim=True)
        self.heads_KF_, self.biases_K_ = moved.flatten(0, 1), bias_C.repeat(self.repeats)
        parts = self._parts(len(z_NF))
        spans = [(z_NF.amin(), z_NF.amax())]
        extremes = [self._logits(z_NF[part]).aminmax() for part in parts]
        spans.append(
            (torch.stack([e.min for e in extremes]).amin(), torch.stack([e.max for e in extremes]).amax())
        )
        self.range_22_ = torch.stack([torch.stack(span) for span in spans])
        means = [torch.zeros(self.bins, dtype=torch.float64) for _ in range(2)]
        for part in parts:
            for mean, values, span in zip(
                means, (z_NF[part], self._logits(z_NF[part])), self.range_22_, strict=True
            ):
                mean += self._histogram(values, span).sum(0) / len(z_NF)
        self.typical_2B_ = torch.stack(means)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.range_22_ is None or self.typical_2B_ is None:
            raise NotFitted(self)
        z_NF, found = checked(output.z_BF, "features"), []
        for part in self._parts(len(z_NF)):
            logits = self._logits(z_NF[part])
            own, perturbed = (
                self._divergence(self._histogram(values, span), typical, floor)
                for values, span, typical, floor in zip(
                    (z_NF[part], logits), self.range_22_, self.typical_2B_, (0.01, 0.025), strict=True
                )
            )
            msp = logits.unflatten(1, (self.repeats, -1)).softmax(2).amax(2).mean(1)
            found.append(own + self.lambda_1 * perturbed - self.lambda_2 * msp)
        return torch.cat(found)

    def _parts(self, n: int) -> list[slice]:
        assert self.heads_KF_ is not None
        rows = max(1, COMPUTED_TOGETHER // len(self.heads_KF_))
        return [slice(start, start + rows) for start in range(0, n, rows)]

    def _logits(self, z_NF: Tensor) -> Tensor:
        assert self.heads_KF_ is not None
        assert self.biases_K_ is not None
        return z_NF @ self.heads_KF_.T + self.biases_K_

    def _histogram(self, values_NV: Tensor, span_2: Tensor) -> Tensor:
        """The share of each row's values in each bin (N, bins); values out of the range are in none."""
        low, high = span_2
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
