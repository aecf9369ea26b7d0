"""Distance to the nearest class mean, in units of the spread within classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, class_means, count_classes, learned, whitening

__all__ = ["Mahalanobis", "nearest_square"]


@register("detectors", "mahalanobis")
@dataclass
class Mahalanobis(BaseDetector):
    """Score = min_c (z - mu_c)' S^-1 (z - mu_c), S the covariance shared by all classes (Lee et al. 2018,
    equations 1 and 2).

    S is the mean of outer products about the class means, with a ridge (see `whitening`). In z L'^-1, S = L
    L', the distance is Euclidean.
    """

    reads: ClassVar = ("features", "labels")

    whiten_FF_: Tensor = learned()
    means_CF_: Tensor = learned()

    def _features(self, output: Output) -> Tensor:
        """What distances are between: the features as they are, unless a subclass does otherwise."""
        return output.z_BF

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for a class without samples, or features constant within classes."""
        z_NF, count_C = self._features(output), count_classes(y_N, output.logits_BC.shape[1], self)
        means_CF = class_means(z_NF, y_N, count_C)
        self.whiten_FF_ = whitening(z_NF - means_CF[y_N])
        self.means_CF_ = means_CF @ self.whiten_FF_

    def _score(self, output: Output) -> Tensor:
        """A squared distance."""
        return nearest_square(self._features(output) @ self.whiten_FF_, self.means_CF_)


def nearest_square(white_NF: Tensor, means_CF: Tensor) -> Tensor:
    """The squared Euclidean distance (N,) to the nearest mean."""
    # Differences, not the expanded square: whitened features may lie far from the origin, near a mean.
    distance_NC = torch.cdist(white_NF, means_CF, compute_mode="donot_use_mm_for_euclid_dist")
    return distance_NC.amin(1).square()
