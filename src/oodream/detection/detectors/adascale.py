"""SCALE with a percentile of its own for every image, by how little its strongest features give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import ForwardPass, Head, Output, Probe
from . import NotFitted, Shaped, checked, fitted, seen, share


@dataclass(frozen=True)
class Shaken:
    """The features after a change of the `pixels` (a share) that matter least to the largest logit.

    They move by half a standard deviation of natural images (0.5 x 0.25 of the range), along the gradient's sign.
    """

    pixels: float
    wants: str = "gradient"
    for_fit: bool = True

    @property
    def key(self) -> str:
        return f"adascale pixels={self.pixels:g}"

    def __call__(self, seen: ForwardPass) -> Tensor:
        (slope,) = torch.autograd.grad(
            seen.output.logits_BC.amax(1).sum(), seen.images_B3HW, retain_graph=True
        )
        n = int(self.pixels * slope[0].numel())
        least = slope.abs().flatten(1).topk(n, dim=1, largest=False).indices
        step = torch.zeros_like(slope).flatten(1).scatter(1, least, STEP).view_as(slope) * slope.sign()
        with torch.no_grad():
            return seen.model(seen.images_B3HW + step).z_BF


STEP = 0.5 * 0.25 * 255


@register("detectors", "adascale")
@dataclass
class AdaSCALE(Shaped):
    """Energy of z exp(sum of z / sum of its largest 1 - p), p = low + (1 - F(Q)) (high - low): AdaSCALE-A (Regmi 2025).

    Q = sum of relu(z') over the largest `k1` (a share) of z, plus `weight` times the sum of |z' - z| over the largest `k2`, z' the
    features after a trivial change of the image; F is Q's empirical distribution on ID training images.
    """

    GRID: ClassVar = {
        "low": (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        "high": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99),
    }

    low: float = 0.75
    high: float = 0.85
    k1: float = 0.05
    k2: float = 0.01
    weight: float = 10.0
    pixels: float = 0.05
    q_N_: Tensor | None = fitted()

    @property
    def views(self) -> Sequence[Probe]:
        return [Shaken(self.pixels)]

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> AdaSCALE:
        """Learns F; ValueError for NaN, no head, or outputs without the probe."""
        super().fit(output, y_N, head)
        if not share(self.low, "low") <= share(self.high, "high"):
            raise ValueError(f"low is at most high; they are {self.low} and {self.high}.")
        self.q_N_ = self._q(output).sort().values
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in nats, higher = OOD; NotFitted before `fit`, ValueError for NaN, infinity or outputs without the probe."""
        if self.q_N_ is None:
            raise NotFitted(self)
        z_NF = checked(output.z_BF, "features")
        below_N = torch.searchsorted(self.q_N_, self._q(output), right=True) / len(self.q_N_)
        p_N = self.low + (1 - below_N) * (self.high - self.low)
        ordered_NF = z_NF.clamp(min=0).sort(dim=1, descending=True).values
        kept_N1 = (z_NF.shape[1] - (z_NF.shape[1] * p_N).round().long()).clamp(min=1)[:, None]
        total_NF = ordered_NF.cumsum(1)
        ratio_N1 = total_NF[:, -1:] / total_NF.gather(1, kept_N1 - 1).clamp(min=1e-30)
        return super().score(Output(logits_BC=output.logits_BC, z_BF=z_NF * ratio_N1.exp()))

    def _q(self, output: Output) -> Tensor:
        z_NF, moved_NF = checked(output.z_BF, "features"), seen(output, self.probes[0])
        order = z_NF.argsort(dim=1, descending=True, stable=True)
        k1, k2 = (max(1, int(k * z_NF.shape[1])) for k in (self.k1, self.k2))
        reached_N = moved_NF.clamp(min=0).gather(1, order[:, :k1]).sum(1)
        return reached_N + self.weight * (moved_NF - z_NF).abs().gather(1, order[:, :k2]).sum(1)
