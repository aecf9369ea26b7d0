"""Finds generated "outliers" that are plain pictures of their class: training on them would teach the class to be unknown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..registry import register


@register("filters", "id_leak")
@dataclass(frozen=True, kw_only=True)
class IdLeak:
    """Drops an image when the plain classifier gives its own class a probability above `threshold`."""

    classifier: nn.Module
    threshold: float = 0.95
    reason: str = "the plain classifier takes it for its class"

    @torch.no_grad()
    def __call__(self, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        self.classifier.eval()
        p = self.classifier(images_B3HW.to(next(self.classifier.parameters()).device)).logits_BC.softmax(1).cpu()
        return p.gather(1, y_B[:, None])[:, 0] <= self.threshold
