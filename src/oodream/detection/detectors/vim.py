"""A virtual logit made of the residual, against the energy of the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import learned
from .residual import Residual

__all__ = ["ViM"]


@register("detectors", "vim")
@dataclass
class ViM(Residual):
    """Score = alpha |P (z - o)| - logsumexp(f(x)), alpha = mean max logit / mean residual in training (Wang
    et al. 2022).

    Monotone in the paper's probability of the virtual class. P, o and `dim` are those of `residual`.
    """

    reads: ClassVar = ("logits", "features", "head")

    alpha_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError as `residual`, or when no training feature leaves the subspace."""
        super()._fit(output, y_N, head)
        mean = super()._score(output).mean()
        if mean == 0:
            raise ValueError("ViM: no training feature leaves the principal subspace; choose a smaller dim.")
        self.alpha_ = output.logits_BC.amax(1).mean() / mean

    def _score(self, output: Output) -> Tensor:
        """In logits."""
        return self.alpha_ * super()._score(output) - output.logits_BC.logsumexp(1)
