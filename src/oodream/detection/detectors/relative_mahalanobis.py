"""Mahalanobis distance to the nearest class, less that to all classes together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted, whitening
from .mahalanobis import Mahalanobis


@register("detectors", "relative_mahalanobis")
@dataclass
class RelativeMahalanobis(Mahalanobis):
    """Score = min_c MD_c(z) - MD_0(z), MD_0 with mean and covariance of all features (Ren et al. 2021).

    MD_c is squared and as in `mahalanobis`; what is unusual for every class alike cancels.
    """

    background_FF_: Tensor | None = fitted()
    mean_F_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> RelativeMahalanobis:
        """Learns both Gaussians; ValueError as `mahalanobis`."""
        super().fit(output, y_N, head)
        z_NF = checked(output.z_BF, "features")
        self.background_FF_ = whitening(z_NF - z_NF.mean(0))
        self.mean_F_ = z_NF.mean(0) @ self.background_FF_
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), a difference of squared distances, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinity."""
        if self.background_FF_ is None or self.mean_F_ is None:
            raise NotFitted(self)
        all_N = (checked(output.z_BF, "features") @ self.background_FF_ - self.mean_F_).square().sum(1)
        return super().score(output) - all_N
