"""Features by class, and what samplers share: class means, the tied covariance, and vectors in turns of the
classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...core.seeding import derive
from ...core.types import Features, SampledVectors
from ...functional.knn import kth_distance

__all__ = ["Classes", "check_several", "interleaved", "neighbour"]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Features by class, in the order of the labels: `rows` of the features (n,), and `z` (n, D), float32 of
    unit norm.
    """

    labels: list[int]
    rows: list[Tensor]
    z: list[Tensor]

    @classmethod
    def of(cls, features: Features, check: Callable[[Tensor, Sequence[str]], None] | None = None) -> Classes:
        """The classes that the features have. Raises what a sampler's `check` of their labels does."""
        labels = features.y_N.unique().tolist()
        if check is not None:
            check(features.y_N, list(map(str, range(max(labels) + 1))))
        rows = [(features.y_N == c).nonzero()[:, 0] for c in labels]
        return cls(labels=labels, rows=rows, z=[normalize(features.z_ND[r].float(), dim=1) for r in rows])

    def directions(self) -> Tensor:
        """The classes' mean directions (C, D), of unit norm."""
        return normalize(torch.stack([z_ND.mean(0) for z_ND in self.z]), dim=1)

    def tied_covariance(self, shrinkage: float) -> Tensor:
        """The covariance (D, D), float64, of features about the means of their classes, shared by all
        classes.

        The share `shrinkage` of it is replaced by a sphere of the same mean variance:
        (1 - s) S + s tr(S) / D I. A millionth of the mean variance is always added, so that it can be
        inverted.
        """
        centred = [(z_ND := z.double()) - z_ND.mean(0) for z in self.z]
        cov_DD = torch.stack([x.T @ x for x in centred]).sum(0) / sum(map(len, centred))
        variance = cov_DD.diagonal().mean().clamp(min=1e-12)
        eye_DD = torch.eye(len(cov_DD), dtype=cov_DD.dtype)
        return (1 - shrinkage) * cov_DD + (shrinkage + 1e-6) * variance * eye_DD

    def sample(
        self, draw: Callable[[int], tuple[Tensor, Tensor]], kind: str, seed: int, space: str
    ) -> SampledVectors:
        """What `draw` gives for the i-th class, vectors (n, D) and their anchors in the class (n,), as
        sampled vectors, classes interleaved.

        `knn_M` is the distance to the `neighbour`-th nearest feature of the class.
        """

        def drawn(i: int) -> tuple[Tensor, Tensor, Tensor]:
            (v_MD, anchor_M), z_ND = draw(i), self.z[i]
            v_MD = v_MD.float()
            return v_MD, self.rows[i][anchor_M], kth_distance(v_MD, z_ND, neighbour(len(z_ND)))

        return interleaved(map(drawn, range(len(self.z))), self.labels, kind, seed, space)


def interleaved(
    parts: Iterable[Sequence[Tensor]], labels: list[int], kind: str, seed: int, space: str
) -> SampledVectors:
    """Each class's vectors (n, D), anchors (n,) and distances (n,) as rows of which m is of class m mod C.

    Parts are taken one after the other, so that no second copy of all vectors is held. The seeds of the
    images depend on the row, `kind` and `seed` alone, so they are the same for all samplers.
    """
    count, columns = len(labels), list[Tensor]()
    for i, part in enumerate(parts):
        columns = columns or [x.new_empty(count * len(x), *x.shape[1:]) for x in part]
        for column, x in zip(columns, part, strict=True):
            column[i::count] = x
    z, anchor, knn = columns
    y = torch.tensor(labels).repeat(len(z) // count)
    seeds = torch.tensor([derive(seed, kind, "image", m) for m in range(len(y))])
    return SampledVectors(z_MD=z, y_M=y, anchor_M=anchor, knn_M=knn, seed_M=seeds, kind=kind, space=space)


def neighbour(n: int) -> int:
    """Which neighbour a distance goes to in a class of n images: a fifth of them."""
    return max(1, n // 5)


def check_several(y_N: Tensor, names: Sequence[str], what: str) -> None:
    """Raises ValueError, with the class's name, for labels of one class alone."""
    if len(classes := y_N.unique().tolist()) < 2:
        raise ValueError(f"There is one class, {names[classes[0]]!r}; {what} needs two. Add a class.")
