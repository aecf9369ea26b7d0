"""Divergence from the class's typical probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned, log_probabilities

__all__ = ["KLMatching"]


@register("detectors", "kl_matching")
@dataclass
class KLMatching(BaseDetector):
    """Score = min_c KL(p(x) || d_c), d_c the mean softmax of samples predicted as c (Hendrycks et al. 2022).

    A class that is never predicted has no d_c. Means are taken in log space: no entry of d_c is zero. Two
    outputs that are sure of one class beyond float64 have the same score, for their divergence is the same.
    """

    log_d_CC_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        log_p_NC = log_probabilities(output.logits_BC)[0]
        predicted_N = log_p_NC.argmax(1)
        rows = [log_p_NC[predicted_N == c] for c in predicted_N.unique()]
        self.log_d_CC_ = torch.stack([row.logsumexp(0) - math.log(len(row)) for row in rows])

    def _score(self, output: Output) -> Tensor:
        """In nats, at least 0."""
        log_p_NC = log_probabilities(output.logits_BC)[0]
        p_NC = log_p_NC.exp()
        return ((p_NC * log_p_NC).sum(1, keepdim=True) - p_NC @ self.log_d_CC_.T).amin(1)
