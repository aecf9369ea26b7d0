"""Length of the head's gradient, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import Fixed, checked


@register("detectors", "gradnorm")
@dataclass
class GradNorm(Fixed):
    """Score = -|z|_1 sum_c |p_c - 1/C|, the L1 norm of the head's gradient of KL(uniform || p), p the softmax (Huang et al. 2021).

    That gradient is the outer product (p - 1/C) z', so no backward pass is needed.
    """

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at most 0, higher = OOD; ValueError for NaN or infinite features or logits."""
        p_NC = checked(output.logits_BC, "logits").softmax(1)
        return -checked(output.z_BF, "features").abs().sum(1) * (p_NC - 1 / p_NC.shape[1]).abs().sum(1)
