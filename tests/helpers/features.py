"""Made-up features of a few classes."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import normalize

from oodream.core.types import Features


def features(n: int = 60, classes: int = 3, width: int = 16, spread: float = 0.3, seed: int = 0) -> Features:
    """Unit features (classes * n, width), each class in a block around a direction of its own."""
    g = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(classes, width, generator=g), dim=1)
    y = torch.arange(classes).repeat_interleave(n)
    z = normalize(centres[y] + spread * torch.randn(len(y), width, generator=g) / math.sqrt(width), dim=1)
    return Features(z_ND=z, y_N=y, index_N=torch.arange(len(y)), encoder="test")
