"""Distance to the nearest class mean, after a step that brings the image nearer to it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Option, Range
from ...core.registry import register
from ...core.types import ForwardPass, Output, Probe
from .mahalanobis import Mahalanobis, nearest_square

__all__ = ["Nearer", "PerturbedMahalanobis"]


@dataclass(frozen=True, eq=False)
class Nearer:
    """The features (B, F) of x - epsilon sign(dM(x) / dx), M the squared distance to the nearest of
    `means_CF` where z is multiplied by `whiten_FF`; pixels in [0, 1].
    """

    whiten_FF: Tensor
    means_CF: Tensor
    epsilon: float
    wants: str = "gradient"
    for_fit: bool = False

    @property
    def key(self) -> str:
        learned = hashlib.blake2b(digest_size=16)
        for tensor in (self.whiten_FF, self.means_CF):
            learned.update(tensor.numpy().tobytes())
        return f"mahalanobis {learned.hexdigest()} epsilon={self.epsilon:g}"

    def __call__(self, forward: ForwardPass) -> Tensor:
        z_BF, images = forward.output.z_BF, forward.images_B3HW
        distance_B = nearest_square(z_BF @ self.whiten_FF.to(z_BF), self.means_CF.to(z_BF))
        (slope_B3HW,) = torch.autograd.grad(distance_B.sum(), images, retain_graph=True)
        with torch.no_grad():
            return forward.model(images - 255 * self.epsilon * slope_B3HW.sign()).z_BF


@register("detectors", "perturbed_mahalanobis")
@dataclass
class PerturbedMahalanobis(Mahalanobis):
    """Score of `mahalanobis` for x' = x - `epsilon` sign(dM(x) / dx), M the score itself (Lee et al. 2018,
    equation 3; the last layer's features alone).

    Known images come nearer to their class by such a step than others do. epsilon is in units of pixels in
    [0, 1], before normalisation. What is wanted of an image depends on what `fit` has learned.
    """

    reads: ClassVar = ("features", "labels")
    GRID: ClassVar[dict[str, tuple[Option, ...]]] = {"epsilon": (0.0, 0.0005, 0.0014, 0.005, 0.01)}

    epsilon: Annotated[float, Range(0)] = 0.0014

    @property
    def probes(self) -> Sequence[Probe]:
        if self.whiten_FF_ is None:
            return []
        return [Nearer(self.whiten_FF_, self.means_CF_, self.epsilon)]

    def _score(self, output: Output) -> Tensor:
        """A squared distance."""
        return nearest_square(output.probes[self.probes[0].key] @ self.whiten_FF_, self.means_CF_)
