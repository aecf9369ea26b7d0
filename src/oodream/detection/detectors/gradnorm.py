"""Length of the head's gradient, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import BaseDetector

__all__ = ["GradNorm"]


@register("detectors", "gradnorm")
@dataclass
class GradNorm(BaseDetector):
    """Score = -|z|_1 sum_c |p_c - 1/C|, the L1 norm of the head's gradient of KL(uniform || p), p the softmax
    (Huang et al. 2021).

    That gradient is the outer product (p - 1/C) z', so no backward pass is needed.
    """

    reads: ClassVar = ("logits", "features")

    def _score(self, output: Output) -> Tensor:
        """At most 0."""
        p_NC = output.logits_BC.softmax(1)
        return -output.z_BF.abs().sum(1) * (p_NC - 1 / p_NC.shape[1]).abs().sum(1)
