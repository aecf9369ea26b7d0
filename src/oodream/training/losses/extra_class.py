"""Outliers as a class of their own, beside the known ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms
from .cross_entropy import cross_entropy

__all__ = ["ExtraClass"]


@register("losses", "extra_class")
class ExtraClass(Loss):
    """Cross-entropy over the classes and one more, for outliers.

    The logit of the extra class is a linear function of the features. Known images and outliers weigh the
    same whatever their numbers. The classifier keeps its own classes: the extra logit belongs to the loss,
    and detectors see what it has taught the features.
    """

    outliers = True

    def build(self, sizes: Sizes) -> None:
        """Makes the layer of the extra logit."""
        self.extra = nn.Linear(sizes.features, 1)

    def forward(self, step: Step) -> Terms:
        if step.ood is None:
            raise ValueError("extra_class needs outliers; use cross_entropy to train without.")
        known, unknown = (torch.cat([x.logits_BC, self.extra(x.z_BF)], 1) for x in (step.id, step.ood))
        last = torch.full((len(unknown),), known.shape[1] - 1, device=unknown.device)
        ce = cross_entropy(known, step)
        outliers = F.cross_entropy(unknown, last)
        return Terms(total=ce + outliers, parts={"ce": ce, "outliers": outliers})
