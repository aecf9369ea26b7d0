"""Outliers as classes of their own, beside the known ones."""

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
    """Cross-entropy over the classes and one more, for outliers; `named`, one more for each of their names.

    The logits of the extra classes are linear functions of the features. Known images and outliers weigh the
    same whatever their numbers. The classifier keeps its own classes: the extra logits belong to the loss,
    and detectors see what it has taught the features. Outliers that were drawn by words have these as their
    names, real ones their folders, and all others the class that they lie around. Classes for kinds of
    outliers are those of hierarchical outlier detection (Roy et al. 2022, arXiv 2104.03829).
    """

    outliers = True

    def __init__(self, named: bool = False) -> None:
        super().__init__()
        self.named = named

    def build(self, sizes: Sizes) -> None:
        """Makes the layer of the extra logits."""
        self.extra = nn.Linear(sizes.features, sizes.names if self.named else 1)

    def forward(self, step: Step) -> Terms:
        if step.ood is None or step.name_O is None:
            raise ValueError("extra_class needs outliers; use cross_entropy to train without.")
        known, unknown = (torch.cat([x.logits_BC, self.extra(x.z_BF)], 1) for x in (step.id, step.ood))
        name_O = step.name_O if self.named else torch.zeros_like(step.name_O)
        ce = cross_entropy(known, step)
        outliers = F.cross_entropy(unknown, step.id.logits_BC.shape[1] + name_O)
        return Terms(total=ce + outliers, parts={"ce": ce, "outliers": outliers})
