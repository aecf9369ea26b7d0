"""SCALE with a percentile of its own for every image, by how little its strongest features give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import ConfigError, Range
from ...core.registry import register
from ...core.types import ForwardPass, Head, Output, Probe
from . import ShapedEnergy, learned

__all__ = ["AdaSCALE", "Shaken"]

STEP = 0.5 * 0.25 * 255  # half a standard deviation of natural images, which is a quarter of the range


@dataclass(frozen=True)
class Shaken:
    """The features after a change of the `pixels` (a share) that matter least to the largest logit.

    These pixels move by STEP along the gradient's sign.
    """

    pixels: float
    wants: str = "gradient"
    for_fit: bool = True

    @property
    def key(self) -> str:
        return f"adascale pixels={self.pixels:g}"

    def __call__(self, forward: ForwardPass) -> Tensor:
        images_B3HW, best_B = forward.images_B3HW, forward.output.logits_BC.amax(1)
        (slope_B3HW,) = torch.autograd.grad(best_B.sum(), images_B3HW, retain_graph=True)
        slope_BP = slope_B3HW.flatten(1)
        least = slope_BP.abs().topk(int(self.pixels * slope_BP.shape[1]), dim=1, largest=False).indices
        step_BP = torch.zeros_like(slope_BP).scatter(1, least, STEP) * slope_BP.sign()
        with torch.no_grad():
            return forward.model(images_B3HW + step_BP.view_as(images_B3HW)).z_BF


@register("detectors", "adascale")
@dataclass
class AdaSCALE(ShapedEnergy):
    """Energy of z exp(sum of z / sum of its largest 1 - p), p = low + (1 - F(Q)) (high - low): AdaSCALE-A
    (Regmi 2025).

    Q = sum of relu(z') over the largest `k1` (a share) of z, plus `weight` times the sum of |z' - z| over the
    largest `k2`, z' the features after a trivial change of the image; F is Q's empirical distribution on ID
    training images.
    """

    GRID: ClassVar = {
        "low": (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        "high": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99),
    }

    low: Annotated[float, Range(0, 1, "both")] = 0.75
    high: Annotated[float, Range(0, 1, "both")] = 0.85
    k1: Annotated[float, Range(0, 1, "low")] = 0.05
    k2: Annotated[float, Range(0, 1, "low")] = 0.01
    weight: Annotated[float, Range(0)] = 10.0
    pixels: Annotated[float, Range(0, 1, "low")] = 0.05
    q_N_: Tensor = learned()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise ConfigError(f"low must be at most high; they are {self.low} and {self.high}.")

    @property
    def probes(self) -> Sequence[Probe]:
        return [Shaken(self.pixels)]

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        self.q_N_ = self._q(output).sort().values

    def _score(self, output: Output) -> Tensor:
        z_NF = output.z_BF
        below_N = torch.searchsorted(self.q_N_, self._q(output), right=True) / len(self.q_N_)
        p_N = self.low + (1 - below_N) * (self.high - self.low)
        largest_N1 = (z_NF.shape[1] - (z_NF.shape[1] * p_N).round().long()).clamp(min=1)[:, None]
        total_NF = z_NF.clamp(min=0).sort(dim=1, descending=True).values.cumsum(1)
        ratio_N1 = total_NF[:, -1:] / total_NF.gather(1, largest_N1 - 1).clamp(min=1e-30)
        return super()._score(replace(output, z_BF=z_NF * ratio_N1.exp()))

    def _q(self, output: Output) -> Tensor:
        z_NF, moved_NF = output.z_BF, output.probes[self.probes[0].key]
        order = z_NF.argsort(dim=1, descending=True, stable=True)
        k1, k2 = (max(1, int(k * z_NF.shape[1])) for k in (self.k1, self.k2))
        reached_N = moved_NF.clamp(min=0).gather(1, order[:, :k1]).sum(1)
        return reached_N + self.weight * (moved_NF - z_NF).abs().gather(1, order[:, :k2]).sum(1)
