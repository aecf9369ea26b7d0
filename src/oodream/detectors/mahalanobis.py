"""Distance to the nearest class mean, in units of the spread within classes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..registry import register
from ..types import Output
from . import NotFitted, checked

RIDGE = 1e-6


@register("detectors", "mahalanobis")
@dataclass
class Mahalanobis:
    """Score = min_c (z - mu_c)' S^-1 (z - mu_c), S the covariance shared by all classes (Lee et al. 2018, equations 1 and 2).

    S is the mean of outer products about the class means, plus RIDGE * trace(S) / F on the diagonal, so that features which never
    vary stay invertible whatever the features' scale. S = L L' is factored once; in z L'^-1 the distance is Euclidean.
    """

    whiten_FF_: Tensor | None = field(default=None, init=False, repr=False)
    means_CF_: Tensor | None = field(default=None, init=False, repr=False)

    def fit(self, output: Output, y_N: Tensor) -> Mahalanobis:
        """Learns class means and S; ValueError for NaN, a class without samples, or features constant within classes."""
        z_NF, classes = checked(output.z_BF, "features"), output.logits_BC.shape[1]
        count_C = y_N.bincount(minlength=classes)
        if missing := (count_C == 0).nonzero()[:, 0].tolist():
            raise ValueError(f"Mahalanobis has no training sample of class {', '.join(map(str, missing))}.")
        means_CF = z_NF.new_zeros(classes, z_NF.shape[1]).index_add_(0, y_N, z_NF) / count_C[:, None]
        residual_NF = z_NF - means_CF[y_N]
        cov_FF = residual_NF.T @ residual_NF / len(z_NF)
        spread = cov_FF.diagonal().mean()
        if spread == 0:
            raise ValueError("Mahalanobis needs features that vary within classes.")
        eye_FF = torch.eye(len(cov_FF), dtype=cov_FF.dtype, device=cov_FF.device)
        factor_FF = torch.linalg.cholesky(cov_FF + RIDGE * spread * eye_FF)
        self.whiten_FF_ = torch.linalg.solve_triangular(factor_FF, eye_FF, upper=False).T
        self.means_CF_ = means_CF @ self.whiten_FF_
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), squared distance, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.whiten_FF_ is None or self.means_CF_ is None:
            raise NotFitted(self)
        white_NF = checked(output.z_BF, "features") @ self.whiten_FF_
        # Differences, not the expanded square: whitened features may lie far from the origin and close to a mean.
        return torch.cdist(white_NF, self.means_CF_, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square()
