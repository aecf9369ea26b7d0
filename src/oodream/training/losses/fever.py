"""FEVER-OOD's regulariser: the last layer sees every direction of the features that it can see."""

from __future__ import annotations

import torch

from ...config.types import NotNegative
from ...core.registry import register
from ...core.types import Loss, Step, Terms

__all__ = ["Fever"]


@register("losses", "fever")
class Fever(Loss):
    """weight / s_min, or with `condition` weight * s_max / s_min: a term to add to another loss.

    s are the singular values of the last layer's weights, min(classes, features) of them (FEVER-OOD, Isaac-
    Medina et al. 2025: the regularisers of the least singular value and of the condition number, in the form
    of the authors' code). Along the direction of a small one features change and the energy hardly does. The
    method's other half, a narrower layer in front, is a matter of the backbone and not here. The authors
    name no weight to begin with; the default is ours.
    """

    needs_head = True

    def __init__(self, weight: NotNegative = 0.01, condition: bool = False) -> None:
        super().__init__()
        self.weight, self.condition = weight, condition

    def forward(self, step: Step) -> Terms:
        if step.head is None:
            raise ValueError("fever needs the classifier's linear head.")
        singular = torch.linalg.svdvals(step.head.weight_CF)
        fever = (singular[0] if self.condition else 1) / singular[-1]
        return Terms(total=self.weight * fever, parts={"fever": fever})
