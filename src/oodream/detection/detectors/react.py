"""Energy of features cut off where ID features seldom reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from . import Shaped, fitted, quantile, share


@register("detectors", "react")
@dataclass
class ReAct(Shaped):
    """Energy of min(z, c), c the quantile `percentile` of all ID training activations (Sun et al. 2021)."""

    GRID: ClassVar = {"percentile": (0.8, 0.85, 0.9, 0.95, 0.99)}

    percentile: float = 0.9
    limit_: Tensor | None = fitted()

    def learn(self, z_NF: Tensor) -> None:
        self.limit_ = quantile(z_NF, share(self.percentile, "percentile"))

    def shape(self, z_NF: Tensor) -> Tensor:
        assert self.limit_ is not None
        return z_NF.clamp(max=self.limit_)
