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
BLOCK = 256  # thumbnails that are compared at once


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
        keep_N, square_N = torch.zeros(len(thumb_NP), dtype=torch.bool), thumb_NP.square().sum(1)
        for rows in torch.arange(len(thumb_NP)).split(BLOCK):
            others = slice(0, int(rows[-1]) + 1)
            product_BN = thumb_NP[rows] @ thumb_NP[others].T
            apart_BN = (square_N[rows, None] + square_N[others] - 2 * product_BN).clamp(min=0)
            near_BN = apart_BN < self.distance**2 * thumb_NP.shape[1]
            for near_N, i in zip(near_BN, rows.tolist(), strict=True):
                keep_N[i] = not (near_N[:i] & keep_N[:i]).any()
        return keep_N


def _thumbnails(images_B3HW: Tensor) -> Tensor:
    """Means over the cells of a grid, float64 (B, P)."""
    height, width = (min(SIDE, n) for n in images_B3HW.shape[2:])
    return F.adaptive_avg_pool2d(images_B3HW.float(), (height, width)).flatten(1).double()
