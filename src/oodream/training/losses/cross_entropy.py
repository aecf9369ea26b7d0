"""Cross-entropy on known images alone: the baseline classifier's loss, and DREAM-ID's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Step, Terms

__all__ = ["CrossEntropy", "cross_entropy"]


@register("losses", "cross_entropy")
class CrossEntropy(Loss):
    """CE(logits, y), the weighted mean over known images; outliers, if any, are ignored."""

    def forward(self, step: Step) -> Terms:
        return Terms(total=cross_entropy(step.id.logits_BC, step))


def cross_entropy(logits_BC: Tensor, step: Step) -> Tensor:
    """The mean of -log softmax(logits)_y with the labels and weights of the step's known images: a scalar."""
    ce_B = F.cross_entropy(logits_BC, step.y_B, reduction="none")
    return (step.weight_B * ce_B).sum() / step.weight_B.sum()
