"""Maximum softmax probability, kept apart where float arithmetic would round it to one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import BaseDetector

__all__ = ["MSP", "log_unsure"]


@register("detectors", "msp")
@dataclass
class MSP(BaseDetector):
    """Score = log(1 - max softmax): a monotone form of the negative maximum softmax probability (Hendrycks &
    Gimpel 2017).

    1 - p is summed from the other classes in log space, float64, so confident scores neither saturate nor
    tie.
    """

    def _score(self, output: Output) -> Tensor:
        """At most 0."""
        return log_unsure(output.logits_BC)


def log_unsure(logits_NC: Tensor) -> Tensor:
    """log(1 - max softmax) (N,)."""
    others_NC = logits_NC.scatter(1, logits_NC.argmax(1, keepdim=True), -torch.inf)
    return others_NC.logsumexp(1) - logits_NC.logsumexp(1)
