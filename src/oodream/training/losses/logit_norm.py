"""LogitNorm: cross-entropy on logits of one length, so that confidence cannot grow with their norm."""

from __future__ import annotations

from torch.nn import functional as F

from ...config.types import Positive
from ...core.registry import register
from ...core.types import Loss, Step, Terms
from .cross_entropy import cross_entropy

__all__ = ["LogitNorm"]


@register("losses", "logit_norm")
class LogitNorm(Loss):
    """CE(logits / (tau * |logits|), y) on known images (Wei et al. 2022); outliers, if any, are ignored.

    |.| is the Euclidean norm of an image's logits. The default temperature `tau` is the one that OpenOOD
    trains with. The classifier keeps its plain logits, as published.
    """

    def __init__(self, tau: Positive = 0.04) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, step: Step) -> Terms:
        return Terms(total=cross_entropy(F.normalize(step.id.logits_BC, dim=1) / self.tau, step))
