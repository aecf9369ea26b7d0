"""Inner product with the class's stored pattern."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import NotFitted, checked, class_means, every_class, fitted


@register("detectors", "she")
@dataclass
class SHE:
    """Score = -<z, S_c>, c the predicted class, S_c its mean feature over rightly classified images (Zhang et al. 2023)."""

    patterns_CF_: Tensor | None = fitted()

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> SHE:
        """Learns the patterns; ValueError for NaN, or a class of which no sample is rightly classified."""
        z_NF, guess_N = checked(output.z_BF, "features"), checked(output.logits_BC, "logits").argmax(1)
        right_N = guess_N == y_N
        count_C = every_class(y_N[right_N], output.logits_BC.shape[1], self)
        self.patterns_CF_ = class_means(z_NF[right_N], y_N[right_N], count_C)
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features or logits."""
        if self.patterns_CF_ is None:
            raise NotFitted(self)
        guess_N = checked(output.logits_BC, "logits").argmax(1)
        return -(checked(output.z_BF, "features") * self.patterns_CF_[guess_N]).sum(1)
