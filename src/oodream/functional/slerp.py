"""Series of unit vectors, whose pictures show what lies between and around classes.

`slerp` follows the arc between two directions, `away` leaves one direction by stated cosines. Drawn as
pictures, either makes a strip. `along` gives one point on each of many arcs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.seeding import generator

__all__ = ["COSINES", "along", "away", "slerp"]

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
    return _on_arc(a, b, angle, t)


def along(start_ND: Tensor, end_ND: Tensor, t_N: Tensor) -> Tensor:
    """The unit vector (N, D) at the share t of each great-circle arc from a start (t = 0) to an end (t = 1).

    Spherical linear interpolation (Shoemake 1985). The vectors' lengths do not count. Between opposite
    vectors no arc is the shortest: there the nearer end stands for the point.
    """
    a, b, t = normalize(start_ND, dim=1), normalize(end_ND, dim=1), t_N[:, None]
    angle = torch.arccos((a * b).sum(1, keepdim=True).clamp(-1, 1))
    nearer = torch.where(t < 0.5, a, b)
    return normalize(torch.where(angle.sin() < 1e-4, nearer, _on_arc(a, b, angle, t)), dim=1)


def _on_arc(a: Tensor, b: Tensor, angle: Tensor, t: Tensor) -> Tensor:
    """Shoemake's formula."""
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def away(anchor_D: Tensor, seed: int, cosines: Sequence[float] = COSINES) -> Tensor:
    """Unit vectors (n, D) with the given cosines to an anchor, all on one arc in a random direction."""
    a = normalize(anchor_D, dim=0)
    noise = torch.randn(a.shape, generator=generator(seed, "away"))
    across = normalize(noise - (noise @ a) * a, dim=0)
    cosine = torch.tensor(cosines)[:, None]
    return cosine * a + (1 - cosine**2).sqrt() * across
