"""Energy of logits through the head's most important weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import Shaped, checked, quantile, share


@register("detectors", "dice")
@dataclass
class DICE(Shaped):
    """Energy with all weights w_cf zero but those whose contribution w_cf E[z_f] is above its quantile `percentile` over the head.

    The mean is over ID training features (Sun & Li 2022).
    """

    GRID: ClassVar = {"percentile": (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)}

    percentile: float = 0.9

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> DICE:
        """Chooses the weights; ValueError for NaN or a network without a head."""
        super().fit(output, y_N, head)
        assert self.weight_CF_ is not None
        given_CF = self.weight_CF_ * checked(output.z_BF, "features").mean(0)
        limit = quantile(given_CF, share(self.percentile, "percentile"))
        self.weight_CF_ = torch.where(given_CF > limit, self.weight_CF_, 0.0)
        return self
