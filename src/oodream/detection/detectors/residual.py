"""How far a feature lies out of the subspace in which ID features vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, needed


@register("detectors", "residual")
@dataclass
class Residual:
    """Score = |P (z - o)|, P the projection on the complement of the principal subspace (Wang et al. 2022).

    The origin is o = -W^+ b, where the head's logits vanish. `dim` is the subspace's dimension; 0 takes the paper's: 1000 for
    features wider than 2047, 512 from 768 on, else half of the width.
    """

    GRID: ClassVar = {"dim": (8, 16, 32, 64, 128, 256, 512, 1000)}

    dim: int = 0
    origin_F_: Tensor | None = fitted()
    null_FR_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Residual:
        """Learns the subspace; ValueError for NaN, no head, or a dimension that leaves no complement."""
        z_NF = checked(output.z_BF, "features")
        weight_CF, bias_C = needed(head, self)
        width = z_NF.shape[1]
        dim = self.dim or (1000 if width >= 2048 else 512 if width >= 768 else width // 2)
        if not 0 < dim < width:
            raise ValueError(
                f"dim lies between 1 and {width - 1} for features of width {width}; it is {dim}."
            )
        self.origin_F_ = -torch.linalg.pinv(weight_CF) @ bias_C
        centred_NF = z_NF - self.origin_F_
        vectors_FF = torch.linalg.eigh(centred_NF.T @ centred_NF / len(z_NF)).eigenvectors  # ascending
        self.null_FR_ = vectors_FF[:, : width - dim].contiguous()
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), a length, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.origin_F_ is None or self.null_FR_ is None:
            raise NotFitted(self)
        return ((checked(output.z_BF, "features") - self.origin_F_) @ self.null_FR_).norm(dim=1)
