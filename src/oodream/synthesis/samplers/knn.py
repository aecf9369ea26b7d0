"""DREAM-OOD's sampler: Gaussian noise around a class's boundary features, kept where the class is least
likely.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.options import ConfigError, Range, Section
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Features, SampledVectors
from ...functional.knn import kth_distance
from ._classes import interleaved, neighbour
from ._cloud import Cloud, farthest

__all__ = ["KNN"]

Count = Annotated[int, Range(1)]
USUAL = {"outlier": (0.2, 0.2), "inlier": (1.0, 0.96)}
"""`boundary` and `cosine`, where nothing else is asked for: inliers lie around all features, and near them"""


@register("samplers", "knn")
@dataclass(frozen=True, kw_only=True)
class KNN(Section):
    """Vectors around each class's features by distance to the k-th nearest feature (DREAM-OOD, section 3.2;
    NPOS).

    The share `boundary` of a class's features with the largest distance to their k-th neighbour are its
    boundary. Each round takes `anchors` of them, draws `candidates` noisy copies of each, normalise(b + sigma
    * noise), and keeps the `kept` copies with the largest distance. `kind="inlier"` takes the smallest
    distances both times (DREAM-ID). The copies of an anchor are independent and the selection is exact; the
    anchors of a round share noise in halves, as `Cloud` says.

    `k` 0 stands for a fifth of the class; `boundary` and `cosine` 0 for 0.2 both, and of inliers for 1 and
    0.96. `cosine` is the mean cos(copy, b) before selection and stands for
    sigma at any width D: sigma^2 = (1 / cosine^2 - 1) / D; the papers' sigmas at D = 768 are 0.77
    (ImageNet-100) and 0.46 (CIFAR-100).

    As the published code does: `select="random"` keeps random copies (in effect); `count_self` makes each
    feature its own first neighbour; `shared_noise` gives all anchors of a round the same noise; and `images`
    seeds are drawn for every vector.

    Features on a GPU are sampled there: noise is drawn on the CPU, and is the same; last bits may differ.
    Vectors are on the CPU in any case.

    Raises ConfigError, with the option's name, for an option out of its range.
    """

    on_device: ClassVar[bool] = True
    kind: Literal["outlier", "inlier"] = "outlier"
    k: Annotated[int, Range(0)] = 0
    boundary: Annotated[float, Range(0, 1)] = 0.0
    cosine: Annotated[float, Range(0, 1, "high")] = 0.0
    candidates: Count = 500
    anchors: Count = 50
    kept: Count = 2
    select: Literal["distance", "random"] = "distance"
    count_self: bool = False
    shared_noise: bool = False
    images: Count = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, usual in zip(("boundary", "cosine"), USUAL[self.kind], strict=True):
            object.__setattr__(self, name, getattr(self, name) or usual)
        if self.kept > self.candidates:
            raise ConfigError(f"kept must be at most candidates ({self.candidates}), not {self.kept}.")

    def sigma(self, width: int) -> float:
        """The noise's standard deviation per coordinate at embedding width D."""
        return math.sqrt((1 / self.cosine**2 - 1) / width)

    def neighbour(self, n: int) -> int:
        """k for a class of n images."""
        return self.k or neighbour(n)

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, naming the class, where one has fewer than k + 1 images."""
        for c, n in zip(*(part.tolist() for part in y_N.unique(return_counts=True)), strict=True):
            if n < (k := self.neighbour(n)) + 1:
                if n == 1:
                    raise ValueError(
                        f"Class {names[c]!r} has 1 image, and no neighbour of it. Give it more images."
                    )
                raise ValueError(
                    f"Class {names[c]!r} has {n} images; the {k}-th neighbour needs {k + 1}. Give it more "
                    f"images, or lower k to {n - 1}."
                )

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> SampledVectors:
        """`per_class` vectors for every label in `features`, classes interleaved: row m is of class m mod C.

        Raises ValueError where `check` does.
        """
        classes = features.y_N.unique().tolist()
        self.check(features.y_N, list(map(str, range(max(classes) + 1))))
        each = partial(self._of_class, features, per_class=math.ceil(per_class / self.images), seed=seed)
        on_cpu = features.z_ND.device.type == "cpu"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # A CPU samples each class with all cores; for a GPU the cores draw noise for many at once.
            sampled = map(each, classes) if on_cpu else pool.map(each, classes)
            repeated = (
                [part.repeat_interleave(self.images, 0)[:per_class] for part in parts] for parts in sampled
            )
            return interleaved(repeated, classes, self.kind, seed, space)

    def _of_class(
        self, features: Features, c: int, per_class: int, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (per_class, D), their anchors' rows in `features`, and their distances, on the CPU."""
        rows = (features.y_N == c).nonzero()[:, 0]
        z_ND, k = normalize(features.z_ND[rows].float(), dim=1), self.neighbour(len(rows))
        not_self = None if self.count_self else torch.arange(len(rows), device=z_ND.device)
        unlikely = self._sign * kth_distance(z_ND, z_ND, k, self_Q=not_self)
        boundary = (-unlikely).argsort(stable=True)[: math.ceil(self.boundary * len(rows))].cpu()
        rounds: list[tuple[Tensor, Tensor, Tensor]] = []
        while (missing := per_class - sum(len(v) for v, _, _ in rounds)) > 0:
            g = generator(seed, self.kind, c, len(rounds))
            b_A = boundary[torch.randperm(len(boundary), generator=g)[: self.anchors]]
            v_MD, d_M = (
                self._random_copies(z_ND[b_A], z_ND, k, g)
                if self.select == "random"
                else self._best_copies(z_ND[b_A], z_ND, k, g, math.ceil(missing / self.kept))
            )
            rounds.append((v_MD, rows[b_A].repeat_interleave(self.kept)[: len(v_MD)], d_M))
        z, anchor, knn = (torch.cat(part)[:per_class].cpu() for part in zip(*rounds, strict=True))
        return z, anchor, knn

    @property
    def _sign(self) -> int:
        """1 where a large distance is wanted, -1 where a small one is."""
        return 1 if self.kind == "outlier" else -1

    def _best_copies(
        self, b_AD: Tensor, z_ND: Tensor, k: int, g: torch.Generator, needed: int
    ) -> tuple[Tensor, Tensor]:
        """Of the first `needed` anchors the `kept` best of their `candidates` copies, and the copies'
        distances.
        """
        draw = Cloud.shared if self.shared_noise else Cloud.draw
        cloud = draw(b_AD, self.candidates, self.sigma(z_ND.shape[1]), g).first(needed)
        v_AMD, d_AM = farthest(cloud, z_ND, k, self.kept, self._sign)
        return v_AMD.flatten(0, 1), d_AM.flatten(0, 1)

    def _random_copies(self, b_AD: Tensor, z_ND: Tensor, k: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """`kept` copies of each anchor, as they come, and their distances."""
        noise = torch.randn(1 if self.shared_noise else len(b_AD), self.kept, z_ND.shape[1], generator=g)
        v_MD = normalize(b_AD[:, None] + self.sigma(z_ND.shape[1]) * noise.to(z_ND), dim=2).flatten(0, 1)
        return v_MD, kth_distance(v_MD, z_ND, k)
