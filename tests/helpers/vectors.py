"""Random unit vectors, and vectors as a sampler gives them."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from oodream.core.types import SampledVectors


def unit(n: int, width: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors (n, width), a function of the seed."""
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def sampled(n: int, classes: int) -> SampledVectors:
    """Vectors whose classes take turns, each that of its class; seeds are multiples of 7."""
    rows = torch.arange(n)
    y, seed = rows % classes, 7 * rows % 200
    return SampledVectors(
        z_MD=torch.eye(classes)[y],
        y_M=y,
        anchor_M=rows,
        knn_M=rows / n,
        seed_M=seed,
        kind="outlier",
        space="s",
    )
