"""Energy of features cut off where ID features seldom reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import ShapedEnergy, learned, quantile

__all__ = ["ReAct"]


@register("detectors", "react")
@dataclass
class ReAct(ShapedEnergy):
    """Energy of min(z, c), c the quantile `percentile` of all ID training activations (Sun et al. 2021)."""

    GRID: ClassVar = {"percentile": (0.8, 0.85, 0.9, 0.95, 0.99)}

    percentile: Annotated[float, Range(0, 1, "both")] = 0.9
    limit_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        self.limit_ = quantile(output.z_BF, self.percentile)

    def shape(self, z_NF: Tensor) -> Tensor:
        return z_NF.clamp(max=self.limit_)
