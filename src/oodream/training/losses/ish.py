"""ISH: cross-entropy in which an image counts for the last layer as its largest features say."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from ...core.options import Range
from ...core.registry import register
from ...core.types import Loss, Step, Terms
from .cross_entropy import cross_entropy

__all__ = ["ISH", "shaped"]


@register("losses", "ish")
class ISH(Loss):
    """CE on known images, with shaped features in the gradient of the last layer's weights (Xu et al. 2024,
    "Scaling for training time and post-hoc OOD detection enhancement").

    The loss's value, and all other gradients, are those of cross-entropy. In the gradient of the weights the
    features z are replaced by those of the largest 1 - `percentile` of each image, times exp(r), r the sum of
    all over the sum of these: what the detector `scale` multiplies features by. That gradient is at least e
    times as large; published is a fine-tuning (`--regularize.finetune`) with a low rate, 0.003 on ImageNet.
    Outliers, if any, are ignored.
    """

    needs_head = True

    def __init__(self, percentile: Annotated[float, Range(0, 1, "both")] = 0.85) -> None:
        super().__init__()
        self.percentile = percentile

    def forward(self, step: Step) -> Terms:
        if step.head is None:
            raise ValueError("ish needs the classifier's linear head.")
        z_BF = step.id.z_BF.detach()
        change_BC = F.linear(shaped(z_BF, self.percentile) - z_BF, step.head.weight_CF)
        return Terms(total=cross_entropy(step.id.logits_BC + change_BC - change_BC.detach(), step))


def shaped(z_BF: Tensor, percentile: float) -> Tensor:
    """Each row's largest 1 - `percentile` of features, at least one, times exp(sum of the positive ones / sum
    of those that stay); zero elsewhere.
    """
    positive_BF = z_BF.clamp(min=0)
    largest = positive_BF.topk(max(1, int(z_BF.shape[1] * (1 - percentile))), dim=1)
    ratio_B1 = positive_BF.sum(1, keepdim=True) / largest.values.sum(1, keepdim=True).clamp(min=1e-30)
    return positive_BF.new_zeros(z_BF.shape).scatter(1, largest.indices, largest.values) * ratio_B1.exp()
