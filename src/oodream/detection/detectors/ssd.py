"""Distance to clusters of features, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, unit, whitening


@register("detectors", "ssd")
@dataclass
class SSD:
    """Score = min_m (u - mu_m)' S_m^-1 (u - mu_m), u the unit-norm feature, m one of k-means' clusters (Sehwag et al. 2021).

    Labels are not used; one cluster is the paper's default. Every cluster has a covariance of its own.
    """

    GRID: ClassVar = {"clusters": (1, 5, 10, 20)}

    clusters: int = 1
    whiten_MFF_: Tensor | None = fitted()
    means_MF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> SSD:
        """Learns the clusters; ValueError for NaN, too few samples, or a cluster of equal features."""
        u_NF = unit(checked(output.z_BF, "features"))
        if len(u_NF) < 2 * self.clusters:
            raise ValueError(
                f"SSD needs at least two samples for each of its {self.clusters} clusters; there are {len(u_NF)}."
            )
        in_N = torch.from_numpy(KMeans(self.clusters, n_init=4, random_state=0).fit_predict(u_NF.numpy()))
        means = [u_NF[in_N == m].mean(0) for m in range(self.clusters)]
        whiten = [whitening(u_NF[in_N == m] - mean) for m, mean in enumerate(means)]
        self.whiten_MFF_ = torch.stack(whiten)
        self.means_MF_ = torch.stack([mean @ w for mean, w in zip(means, whiten, strict=True)])
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), squared distance, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.whiten_MFF_ is None or self.means_MF_ is None:
            raise NotFitted(self)
        u_NF = unit(checked(output.z_BF, "features"))
        near = [
            (u_NF @ w - mean).square().sum(1)
            for w, mean in zip(self.whiten_MFF_, self.means_MF_, strict=True)
        ]
        return torch.stack(near).amin(0)
