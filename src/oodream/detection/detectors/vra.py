"""Energy of features without what is small and what is large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from . import Shaped, fitted, quantile, share


@register("detectors", "vra")
@dataclass
class VRA(Shaped):
    """Energy of features set to zero below alpha and to beta above it: VRA-P (Xu et al. 2023).

    alpha and beta are the quantiles `low` and `high` of all ID training activations.
    """

    GRID: ClassVar = {"low": (0.01, 0.05, 0.1, 0.15, 0.6), "high": (0.85, 0.9, 0.95, 0.99)}

    low: float = 0.6
    high: float = 0.95
    alpha_: Tensor | None = fitted()
    beta_: Tensor | None = fitted()

    def learn(self, z_NF: Tensor) -> None:
        if self.low >= self.high:
            raise ValueError(f"low is below high; they are {self.low} and {self.high}.")
        self.alpha_, self.beta_ = (quantile(z_NF, share(q, "a quantile")) for q in (self.low, self.high))

    def shape(self, z_NF: Tensor) -> Tensor:
        assert self.alpha_ is not None
        assert self.beta_ is not None
        return torch.where(z_NF < self.alpha_, 0.0, z_NF.clamp(max=self.beta_))
