"""Distance to the decision boundaries, relative to the distance from the training mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, needed


@register("detectors", "fdbd")
@dataclass
class FDBD:
    """Score = -mean over c of |f_best - f_c| / |w_best - w_c|, over |z - mean of training z| (Liu & Qin 2024)."""

    mean_F_: Tensor | None = fitted()
    apart_CC_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> FDBD:
        """Learns the mean; ValueError for NaN, no head, one class, or two classes with one weight vector."""
        weight_CF, _ = needed(head, self)
        apart_CC = torch.cdist(weight_CF, weight_CF, compute_mode="donot_use_mm_for_euclid_dist")
        eye_CC = torch.eye(len(apart_CC), dtype=torch.bool)
        if len(apart_CC) < 2 or (apart_CC[~eye_CC] == 0).any():
            raise ValueError(
                "fDBD needs two classes or more, and a boundary between any two: equal weight vectors have none."
            )
        self.apart_CC_ = apart_CC.masked_fill(eye_CC, 1.0)
        self.mean_F_ = checked(output.z_BF, "features").mean(0)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at most 0, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features or logits."""
        if self.mean_F_ is None or self.apart_CC_ is None:
            raise NotFitted(self)
        logits_NC = checked(output.logits_BC, "logits")
        best_N1, at_N = logits_NC.amax(1, keepdim=True), logits_NC.argmax(1)
        mean_N = ((best_N1 - logits_NC) / self.apart_CC_[at_N]).sum(1) / (logits_NC.shape[1] - 1)
        return -mean_N / (checked(output.z_BF, "features") - self.mean_F_).norm(dim=1).clamp(min=1e-30)
