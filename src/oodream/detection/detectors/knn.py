"""Distance to the k-th nearest training feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from ...functional.knn import kth_distance
from . import NotFitted, checked, fitted, unit


@register("detectors", "knn")
@dataclass
class KNN:
    """Score = Euclidean distance to the `k`-th nearest ID training feature, features scaled to unit norm (Sun et al. 2022).

    Nothing is excluded: score images that `fit` has not seen. With fewer than `k` features the farthest counts.
    """

    GRID: ClassVar = {"k": (1, 10, 50, 100, 200, 500, 1000)}

    k: int = 50
    bank_NF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> KNN:
        """Keeps the features; ValueError for NaN, infinity, or no features at all."""
        if not len(output):
            raise ValueError("There are no training features to be a neighbour of.")
        self.bank_NF_ = _unit(output)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in [0, 2], higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.bank_NF_ is None:
            raise NotFitted(self)
        return kth_distance(_unit(output), self.bank_NF_, min(self.k, len(self.bank_NF_))).double()


def _unit(output: Output) -> Tensor:
    return unit(checked(output.z_BF, "features")).float()
