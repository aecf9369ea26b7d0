"""Energy of features pruned sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from . import Shaped, share

VARIANTS = ("s", "p", "b")


@register("detectors", "ash")
@dataclass
class ASH(Shaped):
    """Energy of features of which only the largest 1 - `percentile` of each sample stay (Djurisic et al. 2023).

    `variant` says what becomes of these: "s" scales them by exp(sum before / sum after), "p" leaves them, "b" makes them equal,
    with the sum before.
    """

    GRID: ClassVar = {"variant": ("s", "p", "b"), "percentile": (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)}

    variant: str = "s"
    percentile: float = 0.9

    def learn(self, z_NF: Tensor) -> None:
        share(self.percentile, "percentile")
        if self.variant not in VARIANTS:
            raise ValueError(f"ash has the variants {', '.join(VARIANTS)}, not {self.variant!r}.")

    def shape(self, z_NF: Tensor) -> Tensor:
        z_NF = z_NF.clamp(min=0)
        top = z_NF.topk(kept(z_NF.shape[1], self.percentile), dim=1)
        before_N1, after_N1 = z_NF.sum(1, keepdim=True), top.values.sum(1, keepdim=True)
        values = {
            "s": top.values * (before_N1 / after_N1.clamp(min=1e-30)).exp(),
            "p": top.values,
            "b": (before_N1 / top.values.shape[1]).expand_as(top.values),
        }
        return torch.zeros_like(z_NF).scatter(1, top.indices, values[self.variant])


def kept(width: int, percentile: float) -> int:
    """How many of `width` features lie above the percentile: at least one."""
    return max(1, width - round(width * percentile))
