"""The entropy of the class probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...core.registry import register
from ...core.types import Output
from . import BaseDetector, log_probabilities

__all__ = ["Entropy"]


@register("detectors", "entropy")
@dataclass
class Entropy(BaseDetector):
    """Score = -sum_c p_c log p_c, p the softmax (Chan et al. 2021, "Entropy maximization and meta
    classification").

    log p of the most likely class comes from the others, so confident scores do not tie.
    """

    def _score(self, output: Output) -> Tensor:
        """In nats, from 0 to log C."""
        log_p_NC = log_probabilities(output.logits_BC)[0]
        return -(log_p_NC.exp() * log_p_NC).sum(1)
