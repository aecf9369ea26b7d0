"""A virtual logit made of the residual, against the energy of the real ones."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, fitted
from .residual import Residual


@register("detectors", "vim")
@dataclass
class ViM(Residual):
    """Score = alpha |P (z - o)| - logsumexp(f(x)), alpha = mean max logit / mean residual in training (Wang et al. 2022).

    Monotone in the paper's probability of the virtual class. P, o and `dim` are those of `residual`.
    """

    alpha_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> ViM:
        """Learns subspace and alpha; ValueError as `residual`, or when no training feature leaves the subspace."""
        super().fit(output, y_N, head)
        mean = super().score(output).mean()
        if mean == 0:
            raise ValueError("ViM: no training feature leaves the principal subspace; choose a smaller dim.")
        self.alpha_ = checked(output.logits_BC, "logits").amax(1).mean() / mean
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in logits, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features or logits."""
        if self.alpha_ is None:
            raise NotFitted(self)
        return self.alpha_ * super().score(output) - checked(output.logits_BC, "logits").logsumexp(1)
