"""Energy of logits through the head's most important weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import ShapedEnergy, quantile

__all__ = ["DICE"]


@register("detectors", "dice")
@dataclass
class DICE(ShapedEnergy):
    """Energy with all weights w_cf zero but those whose contribution w_cf E[z_f] is above its quantile
    `percentile` over the head.

    The mean is over ID training features (Sun & Li 2022).
    """

    GRID: ClassVar = {"percentile": (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)}

    percentile: Annotated[float, Range(0, 1, "both")] = 0.9

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        contribution_CF = head.weight_CF * output.z_BF.mean(0)
        important_CF = contribution_CF > quantile(contribution_CF, self.percentile)
        self.weight_CF_ = torch.where(important_CF, head.weight_CF, 0.0)
