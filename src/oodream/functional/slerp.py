"""The verb that walks the text-conditioned space: paths of vectors whose pictures show what lies between and around classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.seeding import generator

COSINES = (1.0, 0.97, 0.9, 0.8, 0.65, 0.5, 0.3)


def between(start_D: Tensor, end_D: Tensor, n: int) -> Tensor:
    """n unit vectors (n, D) at equal angles on the great circle from one direction to another, both included."""
    a, b = normalize(start_D, dim=0), normalize(end_D, dim=0)
    angle = torch.arccos((a @ b).clamp(-1, 1))
    if angle < 1e-4:
        return a.expand(n, -1).clone()
    t = torch.linspace(0, 1, n)[:, None]
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def away(anchor_D: Tensor, seed: int, cosines: Sequence[float] = COSINES) -> Tensor:
    """Unit vectors (n, D) at given cosines to an anchor, all in one random direction at right angles to it: a sweep of sigma."""
    a = normalize(anchor_D, dim=0)
    noise = torch.randn(a.shape, generator=generator(seed, "away"))
    across = normalize(noise - (noise @ a) * a, dim=0)
    c = torch.tensor(cosines)[:, None]
    return c * a + (1 - c**2).sqrt() * across
