"""Energy, guided by how near confident training features are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from ...functional.knn import largest_products
from . import NotFitted, checked, fitted, unit


@register("detectors", "nnguide")
@dataclass
class NNGuide:
    """Score = -logsumexp(f(x)) * G(x), G the mean of the `k` largest cos(z, z_i) logsumexp(f(x_i)) (Park et al. 2023).

    i runs over all ID training features, or the first `share` of a fixed permutation of them (the paper's 1 % on ImageNet).
    """

    GRID: ClassVar = {"k": (1, 10, 50, 100, 500)}

    k: int = 10
    share: float = 1.0
    bank_NF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> NNGuide:
        """Keeps unit features times their energies; ValueError for NaN, no features, or a share out of (0, 1]."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share lies in (0, 1], not at {self.share}.")
        if not len(output):
            raise ValueError("There are no training features to be guided by.")
        z_NF, logits_NC = checked(output.z_BF, "features"), checked(output.logits_BC, "logits")
        keep = torch.randperm(len(z_NF), generator=torch.Generator().manual_seed(0))[
            : max(1, round(self.share * len(z_NF)))
        ]
        self.bank_NF_ = unit(z_NF[keep]) * logits_NC[keep].logsumexp(1, keepdim=True)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features or logits."""
        if self.bank_NF_ is None:
            raise NotFitted(self)
        near_NK = largest_products(
            unit(checked(output.z_BF, "features")), self.bank_NF_, min(self.k, len(self.bank_NF_))
        )
        return -checked(output.logits_BC, "logits").logsumexp(1) * near_NK.mean(1)
