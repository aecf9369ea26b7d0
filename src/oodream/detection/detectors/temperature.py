"""Maximum softmax probability at the temperature that calibrates the classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, learned
from .msp import log_unsure

__all__ = ["Temperature"]

HALVINGS = 60


@register("detectors", "temperature")
@dataclass
class Temperature(BaseDetector):
    """Score = log(1 - max softmax(f / T)), T the minimiser of the negative log-likelihood (Guo et al. 2017).

    T is learned from what `fit` sees. On the images a network was trained on it is far too low; give held-out
    ID images where you have some. The likelihood is convex in 1 / T, whose best value is found by bisection
    between 1e-3 and 1e3.
    """

    reads: ClassVar = ("logits", "labels")

    t_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        logits_NC = output.logits_BC
        label_logit_N = logits_NC.gather(1, y_N[:, None])[:, 0]
        low, high = torch.tensor([1e-3, 1e3], dtype=torch.float64).log()
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            slope = ((middle.exp() * logits_NC).softmax(1) * logits_NC).sum(1) - label_logit_N
            low, high = (low, middle) if slope.mean() > 0 else (middle, high)
        self.t_ = (-(low + high) / 2).exp()

    def _score(self, output: Output) -> Tensor:
        """At most 0."""
        return log_unsure(output.logits_BC / self.t_)
