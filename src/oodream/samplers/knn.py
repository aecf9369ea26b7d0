"""DREAM-OOD's sampler: Gaussian noise around a class's boundary features, kept where the class is least likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..knn import kth_distance
from ..registry import register
from ..seeding import derive, generator
from ..types import Features, Outliers


@register("samplers", "knn")
@dataclass(frozen=True, kw_only=True)
class KNN:
    """Vectors around each class's features by distance to the k-th nearest feature (DREAM-OOD, section 3.2; NPOS).

    Per class: the share `boundary` of its features with the largest distance to their k-th neighbour are boundary points. Each
    round takes `anchors` of them, draws `candidates` noisy copies of each, normalise(b + sigma * noise), and keeps the `kept`
    copies with the largest distance. `kind="inlier"` takes the smallest distances both times (DREAM-ID).

    `k` defaults to a fifth of the class. `cosine` is the mean cos(copy, b) before selection and stands for sigma at any width D:
    sigma^2 = (1 / cosine^2 - 1) / D; the papers' sigmas at D = 768 are 0.77 (ImageNet-100) and 0.46 (CIFAR-100).
    `select="random"` keeps random copies, as the published code in effect does.
    """

    kind: str = "outlier"
    k: int | None = None
    boundary: float = 0.2
    cosine: float = 0.87
    candidates: int = 500
    anchors: int = 50
    kept: int = 2
    select: str = "distance"

    def __post_init__(self) -> None:
        if self.kind not in ("outlier", "inlier"):
            raise ValueError(f"kind is 'outlier' or 'inlier', not {self.kind!r}.")
        if self.select not in ("distance", "random"):
            raise ValueError(f"select is 'distance' or 'random', not {self.select!r}.")
        if not 0 < self.cosine < 1 or not 0 < self.boundary <= 1:
            raise ValueError("cosine lies in (0, 1) and boundary in (0, 1].")
        if not 1 <= self.kept <= self.candidates or self.anchors < 1:
            raise ValueError("kept lies in [1, candidates], and anchors is at least 1.")

    def sigma(self, width: int) -> float:
        """The noise's standard deviation per coordinate at embedding width D."""
        return math.sqrt((1 / self.cosine**2 - 1) / width)

    def __call__(self, features: Features, per_class: int, seed: int, space: str) -> Outliers:
        """`per_class` vectors for every label in `features`, classes interleaved: row m is of class m mod C.

        Raises ValueError where `check` does.
        """
        classes = features.y_N.unique().tolist()
        self.check(features.y_N, list(map(str, range(max(classes) + 1))))
        ks = {c: self.neighbour(int((features.y_N == c).sum())) for c in classes}
        drawn = [self._of_class(features, c, ks[c], per_class, seed) for c in classes]
        z, anchor, knn = (torch.stack(part, 1).flatten(0, 1) for part in zip(*drawn, strict=True))
        y = torch.tensor(classes).repeat(per_class)
        seeds = torch.tensor([derive(seed, self.kind, "image", m) for m in range(len(y))])
        return Outliers(z_MD=z, y_M=y, anchor_M=anchor, knn_M=knn, seed_M=seeds, kind=self.kind, space=space)

    def neighbour(self, n: int) -> int:
        """k for a class of n images."""
        return max(1, n // 5) if self.k is None else self.k

    def check(self, y_N: Tensor, names: Sequence[str]) -> None:
        """Raises ValueError, naming the class, where one has fewer than k + 1 images."""
        for c, n in zip(*(part.tolist() for part in y_N.unique(return_counts=True)), strict=True):
            if n < (k := self.neighbour(n)) + 1:
                raise ValueError(f"Class {names[c]!r} has {n} images; the {k}-th neighbour needs {k + 1}. Add images or lower k.")

    def _of_class(self, features: Features, c: int, k: int, per_class: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (per_class, D), their anchors' rows in `features`, and their distances."""
        rows = (features.y_N == c).nonzero()[:, 0]
        z_ND = features.z_ND[rows]
        sign = 1 if self.kind == "outlier" else -1
        distance = kth_distance(z_ND, z_ND, k, self_Q=torch.arange(len(rows)))
        boundary = (-sign * distance).argsort(stable=True)[: math.ceil(self.boundary * len(rows))]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        while sum(len(v) for v, _, _ in found) < per_class:
            g = generator(seed, self.kind, c, len(found))
            b = boundary[torch.randperm(len(boundary), generator=g)[: self.anchors]]
            noise = torch.randn(len(b), self.candidates, z_ND.shape[1], generator=g)
            v = normalize(z_ND[b, None] + self.sigma(z_ND.shape[1]) * noise, dim=2)
            if self.select == "random":
                best = torch.rand(v.shape[:2], generator=g).topk(self.kept).indices
                v = v.gather(1, best[..., None].expand(-1, -1, v.shape[2]))
                d = kth_distance(v.flatten(0, 1), z_ND, k)
            else:
                d_all = kth_distance(v.flatten(0, 1), z_ND, k).view(v.shape[:2])
                best = (sign * d_all).topk(self.kept).indices
                v, d = v.gather(1, best[..., None].expand(-1, -1, v.shape[2])), d_all.gather(1, best).flatten()
            found.append((v.flatten(0, 1), rows[b].repeat_interleave(self.kept), d))
        z, anchor, knn = (torch.cat(part)[:per_class] for part in zip(*found, strict=True))
        return z, anchor, knn
