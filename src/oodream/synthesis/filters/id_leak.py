"""Finds generated "outliers" that are plain pictures of their class: training on them would teach the class to be unknown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...core.registry import register


@register("filters", "id_leak")
@dataclass(frozen=True, kw_only=True)
class IdLeak:
    """Drops an image when the plain classifier gives its own class a probability above `threshold`."""

    classifier: nn.Module
    threshold: float = 0.95
    reason: str = "the plain classifier takes it for its class"

    def __call__(self, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        return own_probability(self.classifier, images_B3HW, y_B) <= self.threshold


@torch.no_grad()
def own_probability(classifier: nn.Module, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
    """The probability (B,) that the classifier gives each image's own class."""
    classifier.eval()
    p = classifier(images_B3HW.to(next(classifier.parameters()).device)).logits_BC.softmax(1).cpu()
    return p.gather(1, y_B[:, None])[:, 0]
