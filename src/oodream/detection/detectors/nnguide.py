"""Energy, guided by how near confident training features are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from ...functional.knn import largest_products
from . import BaseDetector, learned, unit

__all__ = ["NNGuide"]


@register("detectors", "nnguide")
@dataclass
class NNGuide(BaseDetector):
    """Score = -logsumexp(f(x)) * G(x), G the mean of the `k` largest cos(z, z_i) logsumexp(f(x_i)) (Park et
    al. 2023).

    i runs over all ID training features, or the first `share` of a fixed permutation of them (the paper's 1 %
    on ImageNet).
    """

    reads: ClassVar = ("logits", "features")
    GRID: ClassVar = {"k": (1, 10, 50, 100, 500)}

    k: Annotated[int, Range(1)] = 10
    share: Annotated[float, Range(0, 1, "low")] = 1.0
    bank_NF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        order = torch.randperm(len(output), generator=torch.Generator().manual_seed(0))
        rows = order[: max(1, round(self.share * len(output)))]
        self.bank_NF_ = unit(output.z_BF[rows]) * output.logits_BC[rows].logsumexp(1, keepdim=True)

    def _score(self, output: Output) -> Tensor:
        """A product of energy and guidance."""
        nearest_NK = largest_products(unit(output.z_BF), self.bank_NF_, min(self.k, len(self.bank_NF_)))
        return -output.logits_BC.logsumexp(1) * nearest_NK.mean(1)
