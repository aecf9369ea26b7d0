"""Cross-entropy on known images alone: the plain classifier, and DREAM-ID's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Step, Terms


@register("losses", "cross_entropy")
class CrossEntropy(Loss):
    """CE(logits, y), the weighted mean over known images; outliers, if any, are ignored."""

    def forward(self, step: Step) -> Terms:
        return Terms(total=cross_entropy(step))


def cross_entropy(step: Step) -> Tensor:
    """The weighted mean of -log softmax(logits)_y over a step's known images: a scalar."""
    return (
        step.weight_B * F.cross_entropy(step.id.logits_BC, step.y_B, reduction="none")
    ).sum() / step.weight_B.sum()
