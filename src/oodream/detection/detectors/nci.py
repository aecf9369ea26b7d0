"""Closeness to the predicted class's weight vector, with the feature's length (neural collapse)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, needed


@register("detectors", "nci")
@dataclass
class NCI:
    """Score = -<z - mean, w_best> / |z - mean| - alpha |z|_1 (Liu & Qin 2025; as OpenOOD computes it).

    w_best is the predicted class's row of the head, the mean that of ID training features.
    """

    GRID: ClassVar = {"alpha": (0.0001, 0.001, 0.01, 0.1)}

    alpha: float = 0.0001
    mean_F_: Tensor | None = fitted()
    weight_CF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> NCI:
        """Learns the mean; ValueError for NaN or no head."""
        self.weight_CF_, _ = needed(head, self)
        self.mean_F_ = checked(output.z_BF, "features").mean(0)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features or logits."""
        if self.mean_F_ is None or self.weight_CF_ is None:
            raise NotFitted(self)
        z_NF, guess_N = checked(output.z_BF, "features"), checked(output.logits_BC, "logits").argmax(1)
        from_NF = z_NF - self.mean_F_
        near_N = (from_NF * self.weight_CF_[guess_N]).sum(1) / from_NF.norm(dim=1).clamp(min=1e-30)
        return -near_N - self.alpha * z_NF.abs().sum(1)
