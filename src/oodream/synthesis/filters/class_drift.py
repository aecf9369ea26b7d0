"""Finds imagined inliers that no longer show their class: training on them would teach the class wrongly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor, nn

from ...core.options import Range, Section
from ...core.registry import register
from ._probability import class_probability

__all__ = ["ClassDrift"]


@register("filters", "class_drift")
@dataclass(frozen=True, kw_only=True)
class ClassDrift(Section):
    """Drops an image when the baseline classifier gives its class a probability below `threshold`; 0 keeps
    all.
    """

    threshold: Annotated[float, Range(0, 1)] = 0.0
    reason: str = field(default="the baseline classifier does not take it for its class", init=False)

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        return class_probability(baseline, images_B3HW, y_B) >= self.threshold
