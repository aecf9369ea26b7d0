"""How far a feature lies out of the subspace in which ID features vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, Reads, learned

__all__ = ["Residual"]


@register("detectors", "residual")
@dataclass
class Residual(BaseDetector):
    """Score = |P (z - o)|, P the projection on the complement of the principal subspace (Wang et al. 2022).

    The origin is o = -W^+ b, where the head's logits vanish. `dim` is the subspace's dimension; 0 takes the
    paper's: 1000 for features wider than 2047, 512 from 768 on, else half of the width.
    """

    reads: ClassVar[tuple[Reads, ...]] = ("features", "head")
    GRID: ClassVar = {"dim": (8, 16, 32, 64, 128, 256, 512, 1000)}

    dim: Annotated[int, Range(0)] = 0
    origin_F_: Tensor = learned()
    null_FR_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for a dimension that leaves no complement."""
        width = output.z_BF.shape[1]
        dim = self.dim or (1000 if width >= 2048 else 512 if width >= 768 else width // 2)
        if not 0 < dim < width:
            raise ValueError(
                f"dim lies between 1 and {width - 1} for features of width {width}; it is {dim}."
            )
        self.origin_F_ = -torch.linalg.pinv(head.weight_CF) @ head.bias_C
        centred_NF = output.z_BF - self.origin_F_
        vectors_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(output)).eigenvectors  # ascending
        self.null_FR_ = vectors_FF[:, : width - dim].contiguous()

    def _score(self, output: Output) -> Tensor:
        """A length."""
        return ((output.z_BF - self.origin_F_) @ self.null_FR_).norm(dim=1)
