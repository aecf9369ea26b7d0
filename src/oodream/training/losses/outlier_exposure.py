"""Outlier exposure: on outliers every class should be equally likely."""

from __future__ import annotations

from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Step, Terms
from .cross_entropy import cross_entropy

__all__ = ["OutlierExposure"]


@register("losses", "outlier_exposure")
class OutlierExposure(Loss):
    """CE + weight * H(uniform, softmax(logits)) on outliers (Hendrycks et al. 2019).

    The cross-entropy to the uniform distribution is -mean_c log p_c, averaged over outliers.
    """

    outliers = True

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, step: Step) -> Terms:
        if step.ood is None:
            raise ValueError("outlier_exposure needs outliers; use cross_entropy to train without.")
        ce = cross_entropy(step.id.logits_BC, step)
        uniform = -F.log_softmax(step.ood.logits_BC, dim=1).mean()
        return Terms(total=ce + self.weight * uniform, parts={"ce": ce, "uniform": uniform})
