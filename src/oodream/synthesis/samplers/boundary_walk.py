"""BOOD's sampler: features near a class boundary, moved across it and a little on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.options import Range, Section, check_interval
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ._classes import Classes, check_several

__all__ = ["BoundaryWalk"]

Count = Annotated[int, Range(0)]


@register("samplers", "boundary_walk")
@dataclass(frozen=True, kw_only=True)
class BoundaryWalk(Section):
    """Features near a class boundary, moved against their class until another one is predicted, and some
    steps on (after BOOD, arXiv 2508.00350).

    The classifier is the cosine one of the latent space, p(c | z) = softmax(cos(z, m_c) / temperature), where
    the mean directions m_c of the features stand for the class vectors T(c). A step is an arc of `angle`
    radians up the gradient of the cross-entropy of z's own class, which is known in closed form. The share
    `boundary` of a class's features that cross after the fewest steps, and of equals those with the smallest
    margin, are where walks begin; features that the classifier mistakes come last. A walk crosses (or gives
    up after `max_steps`) and goes on for some steps more, from `low` to `high` of them, each as often.

    Steps keep to the sphere and have one length whatever their direction. A walk begins beside its feature,
    at a mean cosine of `cosine`, so that a feature gives more than one vector; 1 is the feature itself.

    A vector's anchor is the feature that its walk begins at.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    temperature: Annotated[float, Range(0, open="low")] = 0.1
    angle: Annotated[float, Range(0, 0.5, "low")] = 0.03
    boundary: Annotated[float, Range(0, 1, "low")] = 0.2
    low: Count = 2
    high: Count = 6
    max_steps: Annotated[int, Range(1)] = 100
    cosine: Annotated[float, Range(0, 1, "low")] = 0.98
    kind: str = field(default="outlier", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.low, self.high)

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, with the class's name, for labels of one class alone."""
        check_several(y_N, names, "the sampler 'boundary_walk'")

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` unit vectors for every label in `features`, classes interleaved: row m is of class m
        mod C.

        Raises ValueError where `check` does.
        """
        classes = Classes.of(features, self.check)
        directions_CD = classes.directions()

        def draw(i: int) -> tuple[Tensor, Tensor]:
            z_ND, g = classes.z[i], generator(seed, "boundary_walk", classes.labels[i])
            _, steps_N = self._cross(z_ND, directions_CD, i)
            margin_N = _margin(z_ND, directions_CD, i)
            steps_N = steps_N.masked_fill(margin_N < 0, self.max_steps + 1)
            # By steps, then by margin, which is at most 2.
            nearest = (4 * steps_N.double() + margin_N).argsort(stable=True)
            nearest = nearest[: math.ceil(self.boundary * len(z_ND))]
            anchor_M = nearest[torch.randint(len(nearest), (per_class,), generator=g)]
            noise_MD = torch.randn(per_class, z_ND.shape[1], generator=g)
            sigma = math.sqrt((1 / self.cosine**2 - 1) / z_ND.shape[1])
            v_MD, _ = self._cross(normalize(z_ND[anchor_M] + sigma * noise_MD, dim=1), directions_CD, i)
            more_M = torch.randint(self.low, self.high + 1, (per_class,), generator=g)
            for step in range(self.high):
                v_MD = torch.where((step < more_M)[:, None], self._step(v_MD, directions_CD, i), v_MD)
            return v_MD, anchor_M

        return classes.sample(draw, self.kind, seed, space)

    def _cross(self, z_MD: Tensor, directions_CD: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """The vectors (M, D) where walks from z leave the i-th class, and after how many steps (M,)."""
        steps_M = torch.zeros(len(z_MD), dtype=torch.long)
        for _ in range(self.max_steps):
            inside_M = _margin(z_MD, directions_CD, i) >= 0
            if not inside_M.any():
                break
            z_MD = torch.where(inside_M[:, None], self._step(z_MD, directions_CD, i), z_MD)
            steps_M += inside_M
        return z_MD, steps_M

    def _step(self, z_MD: Tensor, directions_CD: Tensor, i: int) -> Tensor:
        """The unit vectors (M, D) one step on."""
        uphill_MD = self._uphill(z_MD, directions_CD, i)
        return normalize(math.cos(self.angle) * z_MD + math.sin(self.angle) * uphill_MD, dim=1)

    def _uphill(self, z_MD: Tensor, directions_CD: Tensor, i: int) -> Tensor:
        """Unit tangents (M, D) along which the cross-entropy of the i-th class rises fastest.

        The gradient is (sum_c p_c m_c - m_i) / temperature without its part along z, and as (1 - p_i) times
        (sum_{c != i} q_c m_c - m_i), with q the softmax of the other classes, it has a direction even where
        p_i is 1 in float32.
        """
        logits_MC = (z_MD @ directions_CD.T / self.temperature).index_fill(1, torch.tensor(i), -torch.inf)
        uphill_MD = logits_MC.softmax(1) @ directions_CD - directions_CD[i]
        return normalize(uphill_MD - (uphill_MD * z_MD).sum(1, keepdim=True) * z_MD, dim=1)


def _margin(z_MD: Tensor, directions_CD: Tensor, i: int) -> Tensor:
    """The cosine to the i-th class's direction less the largest one to another (M,): negative where another
    class is predicted.
    """
    cosine_MC = z_MD @ directions_CD.T
    return cosine_MC[:, i] - cosine_MC.index_fill(1, torch.tensor(i), -torch.inf).amax(1)
