"""The images that a network takes for most alike: nearest by the cosine of its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..data.images import Images
from .inference import Extractor

__all__ = ["MOST", "Neighbour", "Neighbours"]

MOST = 50_000  # images that are searched; of a larger set every n-th


class Neighbour(NamedTuple):
    """An image by its row in the set, and the cosine to it."""

    row: int
    cosine: float


class Neighbours:
    """Images of a set with their features, to be searched.

    `rows_N` are the rows that are searched. The network runs over them once, or a cache is read.
    """

    def __init__(self, extractor: Extractor, images: Images, most: int = MOST) -> None:
        self.images = images
        step = -(-len(images) // most)
        self.rows_N = torch.arange(0, len(images), step)
        searched = images if step == 1 else images.subset(self.rows_N)
        self._z_NF = normalize(extractor(searched).z_BF.float(), dim=1)

    def nearest(self, z_BF: Tensor, k: int) -> list[Sequence[Neighbour]]:
        """For each feature vector (B, F) its k nearest images, the nearest first."""
        cosine_BN = normalize(z_BF.float(), dim=1) @ self._z_NF.T
        top = cosine_BN.topk(min(k, len(self.rows_N)), dim=1)
        rows_BK = self.rows_N[top.indices]
        return [
            [Neighbour(row, cosine) for row, cosine in zip(rows, cosines, strict=True)]
            for rows, cosines in zip(rows_BK.tolist(), top.values.tolist(), strict=True)
        ]
