"""Energy of features without what is small and what is large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import ConfigError, Range
from ...core.registry import register
from ...core.types import Head, Output
from . import ShapedEnergy, learned, quantile

__all__ = ["VRA"]


@register("detectors", "vra")
@dataclass
class VRA(ShapedEnergy):
    """Energy of features set to zero below alpha and to beta above it: VRA-P (Xu et al. 2023).

    alpha and beta are the quantiles `low` and `high` of all ID training activations.
    """

    GRID: ClassVar = {"low": (0.01, 0.05, 0.1, 0.15, 0.6), "high": (0.85, 0.9, 0.95, 0.99)}

    low: Annotated[float, Range(0, 1, "both")] = 0.6
    high: Annotated[float, Range(0, 1, "both")] = 0.95
    alpha_: Tensor = learned()
    beta_: Tensor = learned()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ConfigError(f"low must be below high; they are {self.low} and {self.high}.")

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        self.alpha_, self.beta_ = (quantile(output.z_BF, q) for q in (self.low, self.high))

    def shape(self, z_NF: Tensor) -> Tensor:
        return torch.where(z_NF < self.alpha_, 0.0, z_NF.clamp(max=self.beta_))
