"""Maximum softmax probability, kept apart where float arithmetic would round it to one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import Fixed, checked


@register("detectors", "msp")
@dataclass
class MSP(Fixed):
    """Score = log(1 - max softmax): a monotone form of the negative maximum softmax probability (Hendrycks & Gimpel 2017).

    1 - p is summed from the other classes in log space, float64, so confident scores neither saturate nor tie.
    """

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at most 0, higher = OOD; ValueError for NaN or infinite logits."""
        return log_unsure(checked(output.logits_BC, "logits"))


def log_unsure(logits_NC: Tensor) -> Tensor:
    """log(1 - max softmax) (N,)."""
    others_NC = logits_NC.scatter(1, logits_NC.argmax(1, keepdim=True), -torch.inf)
    return others_NC.logsumexp(1) - logits_NC.logsumexp(1)
