"""Energy of features pruned sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from . import ShapedEnergy

__all__ = ["ASH", "count_above"]


@register("detectors", "ash")
@dataclass
class ASH(ShapedEnergy):
    """Energy of features of which only the largest 1 - `percentile` of each sample stay (Djurisic et al.
    2023).

    `variant` says what becomes of these: "s" scales them by exp(sum before / sum after), "p" leaves them, "b"
    makes them equal, with the sum before.
    """

    GRID: ClassVar = {"variant": ("s", "p", "b"), "percentile": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}

    variant: Literal["s", "p", "b"] = "s"
    percentile: Annotated[float, Range(0, 1, "both")] = 0.9

    def shape(self, z_NF: Tensor) -> Tensor:
        z_NF = z_NF.clamp(min=0)
        top = z_NF.topk(count_above(z_NF.shape[1], self.percentile), dim=1)
        before_N1, after_N1 = z_NF.sum(1, keepdim=True), top.values.sum(1, keepdim=True)
        values = {
            "s": top.values * (before_N1 / after_N1.clamp(min=1e-30)).exp(),
            "p": top.values,
            "b": (before_N1 / top.values.shape[1]).expand_as(top.values),
        }
        return torch.zeros_like(z_NF).scatter(1, top.indices, values[self.variant])


def count_above(width: int, percentile: float) -> int:
    """How many of `width` features lie above the percentile: at least one."""
    return max(1, width - round(width * percentile))
