"""Energy of features scaled sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from . import Shaped, share
from .ash import kept


@register("detectors", "scale")
@dataclass
class Scale(Shaped):
    """Energy of z exp(sum of z / sum of its largest 1 - `percentile`), nothing pruned (Xu et al. 2024)."""

    GRID: ClassVar = {"percentile": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}

    percentile: float = 0.85

    def learn(self, z_NF: Tensor) -> None:
        share(self.percentile, "percentile")

    def shape(self, z_NF: Tensor) -> Tensor:
        positive_NF = z_NF.clamp(min=0)
        largest_N1 = positive_NF.topk(kept(z_NF.shape[1], self.percentile), dim=1).values.sum(1, keepdim=True)
        return z_NF * (positive_NF.sum(1, keepdim=True) / largest_N1.clamp(min=1e-30)).exp()
