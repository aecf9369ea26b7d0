"""Cross-entropy on ID images alone: the plain classifier."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from ..registry import register
from ..types import Loss, Output, Terms


@register("losses", "cross_entropy")
class CrossEntropy(Loss):
    """CE(logits, y); outliers, if any, are ignored."""

    def forward(self, id: Output, y_B: Tensor, ood: Output | None) -> Terms:
        return Terms(total=cross_entropy(id.logits_BC, y_B))
