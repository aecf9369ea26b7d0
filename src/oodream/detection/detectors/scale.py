"""Energy of features scaled sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from . import ShapedEnergy
from .ash import count_above

__all__ = ["Scale"]


@register("detectors", "scale")
@dataclass
class Scale(ShapedEnergy):
    """Energy of z exp(sum of z / sum of its largest 1 - `percentile`), nothing pruned (Xu et al. 2024)."""

    GRID: ClassVar = {"percentile": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}

    percentile: Annotated[float, Range(0, 1, "both")] = 0.85

    def shape(self, z_NF: Tensor) -> Tensor:
        positive_NF = z_NF.clamp(min=0)
        largest_NK = positive_NF.topk(count_above(z_NF.shape[1], self.percentile), dim=1).values
        ratio_N1 = positive_NF.sum(1, keepdim=True) / largest_NK.sum(1, keepdim=True).clamp(min=1e-30)
        return z_NF * ratio_N1.exp()
