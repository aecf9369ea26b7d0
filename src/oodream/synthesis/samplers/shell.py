"""Vectors at a stated distance from their class, in units of the class's own distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.options import Range, Section, check_interval
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ...functional.knn import kth_distance
from ._classes import Classes, neighbour

__all__ = ["Shell"]

Distance = Callable[[Tensor], Tensor]
Factor = Annotated[float, Range(0, open="low")]
ANGLE = torch.pi / 2  # the longest walk
COARSE, FINE = 24, 12  # points on the way that are looked at, and halvings of the step that crosses


@register("samplers", "shell")
@dataclass(frozen=True, kw_only=True)
class Shell(Section):
    """Vectors as far from their class as the class's own features at a quantile are, or a multiple as far.

    From a feature b within that distance a walk leads along a great circle in a drawn direction, until the
    distance to the class is r times the `quantile` of the distances that the class's own features have. r is
    uniform between `low` and `high`. So a distance means the same in every class and latent space. A walk
    that does not come as far within a quarter of the circle ends there, at cosine 0 to b.

    `distance="mahalanobis"` is sqrt((v - m)' S^-1 (v - m)), m the mean of the class and S the covariance of
    all features about their class means, shrunk towards a sphere by `shrinkage`. `distance="knn"` is the
    distance to the k-th nearest feature of the class, k a fifth of the class; a feature is no neighbour of
    its own.

    With `direction="class"` directions are drawn from N(0, S): walks lead where features of a class differ.
    With "any" all directions are equally likely; features hardly vary in most of them, and a short way is a
    large Mahalanobis distance.

    A vector's anchor is the feature that its walk begins at.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    distance: Literal["mahalanobis", "knn"] = "mahalanobis"
    direction: Literal["class", "any"] = "class"
    quantile: Annotated[float, Range(0, 1)] = 0.99
    low: Factor = 1.0
    high: Factor = 2.0
    shrinkage: Annotated[float, Range(0, 1)] = 0.1
    kind: str = field(default="outlier", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.low, self.high)

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, naming the class, where one has a single image."""
        for c, n in zip(*(part.tolist() for part in y_N.unique(return_counts=True)), strict=True):
            if n < 2:
                raise ValueError(f"Class {names[c]!r} has 1 image; distances within a class need 2. Add one.")

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` unit vectors for every label in `features`, classes interleaved: row m is of class m
        mod C.

        Raises ValueError where `check` does.
        """
        classes = Classes.of(features, self.check)
        factor_DD = torch.linalg.cholesky(classes.tied_covariance(self.shrinkage))

        def draw(i: int) -> tuple[Tensor, Tensor]:
            z_ND, g = classes.z[i], generator(seed, "shell", classes.labels[i])
            measure, own_N = _neighbours(z_ND) if self.distance == "knn" else _mahalanobis(z_ND, factor_DD)
            factor_M = self.low + (self.high - self.low) * torch.rand(per_class, generator=g)
            radius = own_N.double().quantile(self.quantile).float()
            inner = (own_N <= max(self.low * radius, own_N.min())).nonzero()[:, 0]
            anchor_M = inner[torch.randint(len(inner), (per_class,), generator=g)]
            noise_MD = torch.randn(per_class, z_ND.shape[1], generator=g)
            if self.direction == "class":
                noise_MD = noise_MD @ factor_DD.T.float()
            return _walk(z_ND[anchor_M], noise_MD, factor_M * radius, measure), anchor_M

        return classes.sample(draw, self.kind, seed, space)


def _mahalanobis(z_ND: Tensor, factor_DD: Tensor) -> tuple[Distance, Tensor]:
    """The distance (M,) to a class's mean, for the covariance L L', L the factor; and the features' own."""
    mean_D = z_ND.double().mean(0)

    def measure(v_MD: Tensor) -> Tensor:
        difference_DM = (v_MD.double() - mean_D).T
        return torch.linalg.solve_triangular(factor_DD, difference_DM, upper=False).norm(dim=0).float()

    return measure, measure(z_ND)


def _neighbours(z_ND: Tensor) -> tuple[Distance, Tensor]:
    """The distance (M,) to a class's k-th nearest feature; and the features' own, themselves left out."""
    k = neighbour(len(z_ND))
    own_N = kth_distance(z_ND, z_ND, k, self_Q=torch.arange(len(z_ND)))
    return (lambda v_MD: kth_distance(v_MD, z_ND, k)), own_N


def _walk(b_MD: Tensor, noise_MD: Tensor, radius_M: Tensor, measure: Distance) -> Tensor:
    """Unit vectors (M, D) where walks from b in the directions of the noise first come to the distance
    `radius`.
    """
    across_MD = normalize(noise_MD - (noise_MD * b_MD).sum(1, keepdim=True) * b_MD, dim=1)

    def at(angle_M: Tensor) -> Tensor:
        return normalize(angle_M.cos()[:, None] * b_MD + angle_M.sin()[:, None] * across_MD, dim=1)

    near_M, far_M = torch.zeros(len(b_MD)), torch.full((len(b_MD),), ANGLE)
    walking_M = torch.ones(len(b_MD), dtype=torch.bool)
    for step in range(1, COARSE + 1):
        angle_M = torch.full((len(b_MD),), ANGLE * step / COARSE)
        beyond_M = measure(at(angle_M)) >= radius_M
        far_M = torch.where(walking_M & beyond_M, angle_M, far_M)
        walking_M &= ~beyond_M
        near_M = torch.where(walking_M, angle_M, near_M)
    for _ in range(FINE):
        middle_M = (near_M + far_M) / 2
        beyond_M = measure(at(middle_M)) >= radius_M
        near_M, far_M = torch.where(beyond_M, near_M, middle_M), torch.where(beyond_M, middle_M, far_M)
    return at(far_M)
