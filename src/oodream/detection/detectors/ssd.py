"""Distance to clusters of features, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned, unit, whitening

__all__ = ["SSD"]


@register("detectors", "ssd")
@dataclass
class SSD(BaseDetector):
    """Score = min_m (u - mu_m)' S_m^-1 (u - mu_m), u the unit-norm feature, m one of k-means' clusters
    (Sehwag et al. 2021).

    Labels are not used; one cluster is the paper's default. Every cluster has a covariance of its own.
    """

    reads: ClassVar = ("features",)
    GRID: ClassVar = {"clusters": (1, 5, 10, 20)}

    clusters: Annotated[int, Range(1)] = 1
    whiten_MFF_: Tensor = learned()
    means_MF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for too few samples, or a cluster of equal features."""
        u_NF = unit(output.z_BF)
        if len(u_NF) < 2 * self.clusters:
            raise ValueError(
                f"SSD needs two samples for each of its {self.clusters} clusters; there are {len(u_NF)}."
            )
        cluster_N = torch.from_numpy(
            KMeans(self.clusters, n_init=4, random_state=0).fit_predict(u_NF.numpy())
        )
        means = [u_NF[cluster_N == m].mean(0) for m in range(self.clusters)]
        whiten = [whitening(u_NF[cluster_N == m] - mean) for m, mean in enumerate(means)]
        self.whiten_MFF_ = torch.stack(whiten)
        self.means_MF_ = torch.stack([mean @ w for mean, w in zip(means, whiten, strict=True)])

    def _score(self, output: Output) -> Tensor:
        """A squared distance."""
        u_NF = unit(output.z_BF)
        clusters = zip(self.whiten_MFF_, self.means_MF_, strict=True)
        return torch.stack([(u_NF @ w - mean).square().sum(1) for w, mean in clusters]).amin(0)
