"""Distance to the nearest class mean, in units of the spread within classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, class_means, every_class, fitted, whitening


@register("detectors", "mahalanobis")
@dataclass
class Mahalanobis:
    """Score = min_c (z - mu_c)' S^-1 (z - mu_c), S the covariance shared by all classes (Lee et al. 2018, equations 1 and 2).

    S is the mean of outer products about the class means, with a ridge (see `whitening`). In z L'^-1, S = L L', the distance is
    Euclidean.
    """

    whiten_FF_: Tensor | None = fitted()
    means_CF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Mahalanobis:
        """Learns class means and S; ValueError for NaN, a class without samples, or features constant within classes."""
        z_NF = checked(output.z_BF, "features")
        means_CF = class_means(z_NF, y_N, every_class(y_N, output.logits_BC.shape[1], self))
        self.whiten_FF_ = whitening(z_NF - means_CF[y_N])
        self.means_CF_ = means_CF @ self.whiten_FF_
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), squared distance, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.whiten_FF_ is None or self.means_CF_ is None:
            raise NotFitted(self)
        white_NF = checked(output.z_BF, "features") @ self.whiten_FF_
        # Differences, not the expanded square: whitened features may lie far from the origin and close to a mean.
        return (
            torch.cdist(white_NF, self.means_CF_, compute_mode="donot_use_mm_for_euclid_dist")
            .amin(1)
            .square()
        )
