"""Distance to the decision boundaries, relative to the distance from the training mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned

__all__ = ["FDBD"]


@register("detectors", "fdbd")
@dataclass
class FDBD(BaseDetector):
    """Score = -mean over c of |f_best - f_c| / |w_best - w_c|, over |z - mean of training z| (Liu & Qin
    2024).
    """

    reads: ClassVar = ("logits", "features", "head")

    mean_F_: Tensor = learned()
    apart_CC_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for one class, or two classes with one weight vector."""
        apart_CC = torch.cdist(head.weight_CF, head.weight_CF, compute_mode="donot_use_mm_for_euclid_dist")
        eye_CC = torch.eye(len(apart_CC), dtype=torch.bool)
        if len(apart_CC) < 2 or (apart_CC[~eye_CC] == 0).any():
            raise ValueError(
                "FDBD needs two classes or more, and a boundary between any two: equal weight vectors have "
                "none."
            )
        self.apart_CC_ = apart_CC.masked_fill(eye_CC, 1.0)
        self.mean_F_ = output.z_BF.mean(0)

    def _score(self, output: Output) -> Tensor:
        """At most 0."""
        logits_NC = output.logits_BC
        best_N1, best_class_N = logits_NC.amax(1, keepdim=True), logits_NC.argmax(1)
        mean_N = ((best_N1 - logits_NC) / self.apart_CC_[best_class_N]).sum(1) / (logits_NC.shape[1] - 1)
        return -mean_N / (output.z_BF - self.mean_F_).norm(dim=1).clamp(min=1e-30)
