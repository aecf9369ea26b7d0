"""Finds imagined images that nearly repeat an earlier one of their class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.options import Range, Section
from ...core.registry import register

__all__ = ["Duplicate"]

SIDE = 16  # pixels of the thumbnails that are compared


@register("filters", "duplicate")
@dataclass(frozen=True, kw_only=True)
class Duplicate(Section):
    """Drops an image whose thumbnail is nearer than `distance` levels (of 255) to that of an earlier image of
    its class that this filter keeps; 0 keeps all.

    A thumbnail has 16 x 16 pixels in color, each the mean of its part of the image (smaller images are
    compared as they are); the distance is the root of the mean squared difference. The filter compares
    images, so it is given all images of a class together.
    """

    compares: ClassVar[bool] = True

    distance: Annotated[float, Range(0, 255)] = 6.0
    reason: str = field(default="it nearly repeats another image of its class", init=False)

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
        """True (B,) for images (uint8) that stay: of near-equal ones the first."""
        keep_B = torch.ones(len(y_B), dtype=torch.bool)
        for c in y_B.unique():
            rows = (y_B == c).nonzero()[:, 0]
            keep_B[rows] = self._first(
                torch.cat([_thumbnails(part) for part in images_B3HW[rows].split(512)])
            )
        return keep_B

    def _first(self, thumb_NP: Tensor) -> Tensor:
        """True (N,) for thumbnails that are no nearer than `distance` to an earlier one that stays."""
        keep_N = torch.ones(len(thumb_NP), dtype=torch.bool)
        for i, thumb_P in enumerate(thumb_NP):
            apart_N = (thumb_NP[:i][keep_N[:i]] - thumb_P).square().mean(1).sqrt()
            keep_N[i] = bool((apart_N >= self.distance).all())
        return keep_N


def _thumbnails(images_B3HW: Tensor) -> Tensor:
    """Means over the cells of a grid, float32 (B, P)."""
    height, width = (min(SIDE, n) for n in images_B3HW.shape[2:])
    return F.adaptive_avg_pool2d(images_B3HW.float(), (height, width)).flatten(1)
