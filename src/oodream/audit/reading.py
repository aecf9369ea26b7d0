"""Reading whole image sets in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..data.images import Images

__all__ = ["batches"]

MAX_IMAGES, MAX_VALUES = 256, 2**24  # of a batch


def batches(images: Images) -> Iterator[Tensor]:
    """The images as uint8 batches (B, 3, S, S), in order; B is smaller for larger images."""
    size = max(1, min(MAX_IMAGES, MAX_VALUES // (3 * images.size**2)))
    return (x_B3SS for x_B3SS, _ in images.batches(size))
