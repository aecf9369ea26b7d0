"""Relative Mahalanobis distance of features scaled to unit norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import unit
from .relative_mahalanobis import RelativeMahalanobis

__all__ = ["NormalizedRelativeMahalanobis"]


@register("detectors", "normalized_relative_mahalanobis")
@dataclass
class NormalizedRelativeMahalanobis(RelativeMahalanobis):
    """Score of `relative_mahalanobis` on u = z / |z|, in training and test (Müller & Hein 2025, "rMDS++")."""

    def _features(self, output: Output) -> Tensor:
        return unit(output.z_BF)
