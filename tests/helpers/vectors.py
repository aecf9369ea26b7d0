"""Random unit vectors."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


def unit(n: int, width: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors (n, width), a function of the seed."""
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)
