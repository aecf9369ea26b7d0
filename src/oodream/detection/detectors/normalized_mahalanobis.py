"""Mahalanobis distance to the nearest class, of features scaled to unit norm."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import unit
from .mahalanobis import Mahalanobis

__all__ = ["NormalizedMahalanobis"]


@register("detectors", "normalized_mahalanobis")
@dataclass
class NormalizedMahalanobis(Mahalanobis):
    """Score of `mahalanobis` on u = z / |z|, in training and test: Mahalanobis++ (Müller & Hein 2025,
    "MDS++").

    Features whose norms differ much between classes or images are no Gaussians with one covariance; those of
    unit norm are nearer to it.
    """

    def _features(self, output: Output) -> Tensor:
        return unit(output.z_BF)
