"""VOS's sampler: a Gaussian for every class, kept where it is least likely, or most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.options import ConfigError, Range, Section
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ._classes import Classes

__all__ = ["Gaussian"]


@register("samplers", "gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian(Section):
    """The least likely draws from each class's Gaussian, with one covariance for all classes (VOS, Du et al.
    2022, section 3.1).

    The Gaussian of a class has the mean of its features and the covariance S of all features about their
    class means, shrunk towards a sphere by `shrinkage`. Of every `candidates` draws v = m + spread * e, e ~
    N(0, S), the share `epsilon` with the largest Mahalanobis distance stays, that is, with the least
    likelihood. VOS has `spread` 1. Vectors are brought to unit norm afterwards, which VOS does not do.
    `kind="inlier"` takes the smallest distances: with a small `spread` the class's mean direction, which is
    what a prompt with the class's name alone says.

    A vector's anchor is the feature of its class that is nearest to it.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    candidates: Annotated[int, Range(1)] = 10_000
    epsilon: Annotated[float, Range(0, 1, "low")] = 0.01
    spread: Annotated[float, Range(0, open="low")] = 1.0
    shrinkage: Annotated[float, Range(0, 1)] = 0.1
    kind: Literal["outlier", "inlier"] = "outlier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon * self.candidates < 1:
            raise ConfigError(
                f"epsilon must be at least 1 / candidates ({1 / self.candidates:g}), not {self.epsilon!r}: "
                f"otherwise no candidate is kept."
            )

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Any labels will do."""

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` unit vectors for every label in `features`, classes interleaved: row m is of class m
        mod C.
        """
        classes = Classes.of(features)
        factor_DD = torch.linalg.cholesky(classes.tied_covariance(self.shrinkage)).float()

        def draw(i: int) -> tuple[Tensor, Tensor]:
            z_ND = classes.z[i]
            noise_MD = self._extreme(z_ND.shape[1], per_class, seed, classes.labels[i])
            v_MD = normalize(z_ND.mean(0) + self.spread * noise_MD @ factor_DD.T, dim=1)
            return v_MD, (v_MD @ z_ND.T).argmax(1)

        return classes.sample(draw, self.kind, seed, space)

    def _extreme(self, width: int, count: int, seed: int, c: int) -> Tensor:
        """Standard normal noise (count, D) of the largest norms, which are Mahalanobis distances; of inliers
        of the smallest.
        """
        kept = math.floor(self.epsilon * self.candidates + 1e-9)
        rounds = []
        for turn in range(math.ceil(count / kept)):
            noise_CD = torch.randn(self.candidates, width, generator=generator(seed, "gaussian", c, turn))
            far_C = noise_CD.square().sum(1)
            rounds.append(noise_CD[far_C.topk(kept, largest=self.kind == "outlier").indices])
        return torch.cat(rounds)[:count]
