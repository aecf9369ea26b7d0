"""Energy of a feature map without its strongest singular direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import ForwardPass, Output, Probe
from . import ShapedEnergy

__all__ = ["RankFeat", "WithoutRankOne"]


@dataclass(frozen=True)
class WithoutRankOne:
    """The mean over positions of a feature map (F x HW) less s_1 u_1 v_1', its first singular triple."""

    key: str = "rankfeat"
    wants: str = "map"
    for_fit: bool = False

    def __call__(self, forward: ForwardPass) -> Tensor:
        assert forward.map_BFHW is not None  # it is wanted
        map_BFP = forward.map_BFHW.flatten(2).double()
        u_BFR, s_BR, vh_BRP = torch.linalg.svd(map_BFP, full_matrices=False)
        first_BF = u_BFR[:, :, 0] * s_BR[:, :1] * vh_BRP[:, 0].mean(1, keepdim=True)
        return map_BFP.mean(2) - first_BF


@register("detectors", "rankfeat")
@dataclass
class RankFeat(ShapedEnergy):
    """Energy of the last feature map less its first singular triple (Song et al. 2022; "Block 4" alone).

    It needs a network whose features are the mean of a feature map.
    """

    @property
    def probes(self) -> Sequence[Probe]:
        return [WithoutRankOne()]

    def _score(self, output: Output) -> Tensor:
        return super()._score(replace(output, z_BF=output.probes[WithoutRankOne.key]))
