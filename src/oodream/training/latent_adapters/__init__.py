"""How a latent reaches the classifier: one file, one way."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def apart(made: Tensor, wanted: Tensor) -> Tensor:
    """The mean square of what `made` begins with and is not `wanted`, in units of its variance; 0 where nothing is wanted."""
    if len(wanted) == 0:
        return made.sum() * 0
    return F.mse_loss(made[: len(wanted)], wanted) / wanted.var().clamp(min=1e-6)
