"""Finds imagined "outliers" that are ordinary pictures of their class: they would teach that the class is
unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor, nn

from ...core.options import Range, Section
from ...core.registry import register
from ._probability import class_probability

__all__ = ["IdLeak"]


@register("filters", "id_leak")
@dataclass(frozen=True, kw_only=True)
class IdLeak(Section):
    """Drops an image when the baseline classifier gives its class a probability above `threshold`; 1 keeps
    all.
    """

    kind: ClassVar[str] = "outlier"
    threshold: Annotated[float, Range(0, 1)] = 0.95
    reason: str = field(default="the baseline classifier takes it for its class", init=False)

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        return class_probability(baseline, images_B3HW, y_B) <= self.threshold
