"""Mahalanobis distance to the nearest class, less that to all classes together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import learned, whitening
from .mahalanobis import Mahalanobis

__all__ = ["RelativeMahalanobis"]


@register("detectors", "relative_mahalanobis")
@dataclass
class RelativeMahalanobis(Mahalanobis):
    """Score = min_c MD_c(z) - MD_0(z), MD_0 with mean and covariance of all features (Ren et al. 2021).

    MD_c is squared and as in `mahalanobis`; what is unusual for every class alike cancels.
    """

    background_FF_: Tensor = learned()
    mean_F_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        z_NF = self._features(output)
        mean_F = z_NF.mean(0)
        self.background_FF_ = whitening(z_NF - mean_F)
        self.mean_F_ = mean_F @ self.background_FF_

    def _score(self, output: Output) -> Tensor:
        """A difference of squared distances."""
        all_N = (self._features(output) @ self.background_FF_ - self.mean_F_).square().sum(1)
        return super()._score(output) - all_N
