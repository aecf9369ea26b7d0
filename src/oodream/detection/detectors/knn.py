"""Distance to the k-th nearest training feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from ...functional.knn import kth_distance
from . import BaseDetector, Reads, learned, unit

__all__ = ["KNN"]

K = 50


@register("detectors", "knn")
@dataclass
class KNN(BaseDetector):
    """Score = Euclidean distance to the `k`-th nearest ID training feature, features scaled to unit norm (Sun
    et al. 2022).

    With `k` 0 it is a quarter of the smallest class's training images, at least 1 and at most 50, which is
    the usual choice and holds from 200 images a class on. The neighbour must be of the image's own class:
    beyond the size of a class the k-th nearest feature of a known image lies in another one, as that of an
    unknown image does, and scores rank upside down. Nothing is excluded: score images that `fit` has not
    seen. With fewer than `k` features the farthest counts.
    """

    reads: ClassVar[tuple[Reads, ...]] = ("features",)
    GRID: ClassVar = {"k": (1, 10, 50, 100, 200, 500, 1000)}

    k: Annotated[int, Range(0)] = 0
    bank_NF_: Tensor = learned()
    k_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.bank_NF_ = unit(output.z_BF).float()
        smallest = int(y_N.unique(return_counts=True)[1].min())
        self.k_ = torch.tensor(min(self.k or min(K, max(1, smallest // 4)), len(y_N)))

    def _score(self, output: Output) -> Tensor:
        """In [0, 2]."""
        return kth_distance(unit(output.z_BF).float(), self.bank_NF_, int(self.k_)).double()
