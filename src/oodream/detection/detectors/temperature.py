"""Maximum softmax probability at the temperature that calibrates the classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted
from .msp import log_unsure

HALVINGS = 60


@register("detectors", "temperature")
@dataclass
class Temperature:
    """Score = log(1 - max softmax(f / T)), T the minimiser of the negative log-likelihood (Guo et al. 2017).

    T is learnt from what `fit` sees. On the images a network was trained on it is far too low; give held-out ID images where you
    have some. The likelihood is convex in 1 / T, whose best value is found by bisection between 1e-3 and 1e3.
    """

    t_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Temperature:
        """Finds T; ValueError for NaN, or labels the network does not know."""
        logits_NC = checked(output.logits_BC, "logits")
        if len(y_N) and not 0 <= int(y_N.min()) <= int(y_N.max()) < logits_NC.shape[1]:
            raise ValueError(
                f"Labels lie between 0 and {logits_NC.shape[1] - 1}; found {int(y_N.min())} to {int(y_N.max())}."
            )
        own_N = logits_NC.gather(1, y_N[:, None])[:, 0]
        low, high = torch.tensor([1e-3, 1e3], dtype=torch.float64).log()
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            slope = ((middle.exp() * logits_NC).softmax(1) * logits_NC).sum(1) - own_N
            low, high = (low, middle) if slope.mean() > 0 else (middle, high)
        self.t_ = (-(low + high) / 2).exp()
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at most 0, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite logits."""
        if self.t_ is None:
            raise NotFitted(self)
        return log_unsure(checked(output.logits_BC, "logits") / self.t_)
