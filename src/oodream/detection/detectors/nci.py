"""Closeness to the predicted class's weight vector, with the feature's length (neural collapse)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned

__all__ = ["NCI"]


@register("detectors", "nci")
@dataclass
class NCI(BaseDetector):
    """Score = -<z - mean, w_best> / |z - mean| - alpha |z|_1 (Liu & Qin 2025; as OpenOOD computes it).

    w_best is the predicted class's row of the head, the mean that of ID training features.
    """

    reads: ClassVar = ("logits", "features", "head")
    GRID: ClassVar = {"alpha": (0.0001, 0.001, 0.01, 0.1)}

    alpha: Annotated[float, Range(0)] = 0.0001
    mean_F_: Tensor = learned()
    weight_CF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.weight_CF_, self.mean_F_ = head.weight_CF, output.z_BF.mean(0)

    def _score(self, output: Output) -> Tensor:
        """A projection and a length, both of features."""
        from_mean_NF, weight_NF = output.z_BF - self.mean_F_, self.weight_CF_[output.logits_BC.argmax(1)]
        projection_N = (from_mean_NF * weight_NF).sum(1) / from_mean_NF.norm(dim=1).clamp(min=1e-30)
        return -projection_N - self.alpha * output.z_BF.abs().sum(1)
