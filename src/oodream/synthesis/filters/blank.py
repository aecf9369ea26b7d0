"""Finds imagined images that show nothing: one tone from edge to edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor, nn

from ...core.options import Range, Section
from ...core.registry import register

__all__ = ["Blank"]


@register("filters", "blank")
@dataclass(frozen=True, kw_only=True)
class Blank(Section):
    """Drops an image when each of its color channels has a standard deviation below `contrast` levels (of
    255) over the pixels; 0 keeps all.
    """

    contrast: Annotated[float, Range(0, 255)] = 4.0
    reason: str = field(default="it is nearly of one tone", init=False)

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        x_B3P = images_B3HW.float().flatten(2)
        variance_B3 = (x_B3P - x_B3P.mean(2, keepdim=True)).square().mean(2)
        return variance_B3.amax(1).sqrt() >= self.contrast
