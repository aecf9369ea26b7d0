"""Vectors between two classes: points on the arc from a feature of one class to one of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from ...core.options import Range, Section, check_interval
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ...functional.slerp import along
from ._classes import Classes, check_several

__all__ = ["Between"]

Weight = Annotated[float, Range(0, 1)]


@register("samplers", "between")
@dataclass(frozen=True, kw_only=True)
class Between(Section):
    """Points on the great circle between a feature of the class and one of another class, by spherical linear
    interpolation (Shoemake 1985).

    The weight of the other end is uniform between `low` and `high`: 0 is the class's own feature, 1 the other
    end. The other class is one of the `nearest` by the cosine of the classes' mean directions, each as often;
    0 stands for all. Its end is a feature (`end="feature"`) or the mean direction of the class
    (`end="mean"`).

    A vector's anchor is the feature of its own class that the arc begins at.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    low: Weight = 0.4
    high: Weight = 0.6
    nearest: Annotated[int, Range(0)] = 3
    end: Literal["feature", "mean"] = "feature"
    kind: str = field(default="outlier", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.low, self.high)

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, with the class's name, for labels of one class alone."""
        check_several(y_N, names, "the sampler 'between'")

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` unit vectors for every label in `features`, classes interleaved: row m is of class m
        mod C.

        Raises ValueError where `check` does.
        """
        classes = Classes.of(features, self.check)
        directions_CD = classes.directions()
        cosine_CC = (directions_CD @ directions_CD.T).fill_diagonal_(-torch.inf)
        others_CK = cosine_CC.topk(min(self.nearest or len(cosine_CC), len(cosine_CC) - 1)).indices

        def draw(i: int) -> tuple[Tensor, Tensor]:
            g, z_ND = generator(seed, "between", classes.labels[i]), classes.z[i]
            anchor_M = torch.randint(len(z_ND), (per_class,), generator=g)
            other_M = others_CK[i, torch.randint(others_CK.shape[1], (per_class,), generator=g)]
            place_M = torch.rand(per_class, generator=g)
            weight_M = self.low + (self.high - self.low) * torch.rand(per_class, generator=g)
            ends = [
                directions_CD[o] if self.end == "mean" else classes.z[o][int(place * len(classes.z[o]))]
                for o, place in zip(other_M.tolist(), place_M.tolist(), strict=True)
            ]
            return along(z_ND[anchor_M], torch.stack(ends), weight_M), anchor_M

        return classes.sample(draw, self.kind, seed, space)
