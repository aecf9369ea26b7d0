"""Finds generated inliers that no longer show their class: training on them would teach the class wrongly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ...core.registry import register
from .id_leak import own_probability


@register("filters", "class_drift")
@dataclass(frozen=True, kw_only=True)
class ClassDrift:
    """Drops an image when the plain classifier gives its own class a probability below `threshold`."""

    classifier: nn.Module
    threshold: float = 0.0
    reason: str = "the plain classifier does not take it for its class"

    def __call__(self, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        return own_probability(self.classifier, images_B3HW, y_B) >= self.threshold
