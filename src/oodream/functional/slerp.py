"""Series of unit vectors, whose pictures show what lies between and around classes.

`slerp` follows the arc between two directions, `away` leaves one direction by stated cosines. Drawn as
pictures, either makes a strip.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.seeding import generator

__all__ = ["COSINES", "away", "slerp"]

COSINES = (1.0, 0.97, 0.9, 0.8, 0.65, 0.5, 0.3)


def slerp(start_D: Tensor, end_D: Tensor, n: int) -> Tensor:
    """n unit vectors (n, D) at equal angles on the great-circle arc between two directions, both included.

    Spherical linear interpolation (Shoemake 1985). The vectors' lengths do not count.
    """
    a, b = normalize(start_D, dim=0), normalize(end_D, dim=0)
    angle = torch.arccos((a @ b).clamp(-1, 1))
    if angle < 1e-4:
        return a.expand(n, -1).clone()
    t = torch.linspace(0, 1, n)[:, None]
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def away(anchor_D: Tensor, seed: int, cosines: Sequence[float] = COSINES) -> Tensor:
    """Unit vectors (n, D) with the given cosines to an anchor, all on one arc in a random direction."""
    a = normalize(anchor_D, dim=0)
    noise = torch.randn(a.shape, generator=generator(seed, "away"))
    across = normalize(noise - (noise @ a) * a, dim=0)
    cosine = torch.tensor(cosines)[:, None]
    return cosine * a + (1 - cosine**2).sqrt() * across
