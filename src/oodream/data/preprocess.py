"""Pictures as tensors: what `runtime.pictures` reads, channels first, for networks to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime import pictures as arrays
from ..runtime.pictures import Depth, Picture, square, to_rgb

__all__ = ["read_image", "read_or_measure", "read_pictures", "resize_all"]


def read_image(source: Path | BytesIO, size: int, white: float = 0.0) -> Tensor:
    """One picture (of an animation the first frame) as uint8 (3, size, size); `white` is as in `to_rgb`.

    Raises OSError for what is not a whole picture.
    """
    return _tensor(arrays.read_square(source, size, white))


def read_or_measure(
    source: Path | BytesIO, size: int, white: float = 0.0
) -> tuple[Tensor | None, Depth | None]:
    """The picture as `read_image` gives it, or for a deep one without a `white` None and its depth."""
    pixels, depth = arrays.read_or_measure(source, size, white)
    return None if pixels is None else _tensor(pixels), depth


def read_pictures(pictures: Picture | Iterable[Picture], size: int, white: float = 0.0) -> Iterator[Tensor]:
    """Every picture in order as uint8 (3, size, size); what is taken and refused is as in `squares`."""
    return map(_tensor, arrays.squares(pictures, size, white))


def resize_all(pixels: Iterable[np.ndarray], size: int) -> Tensor:
    """N uint8 arrays (H, W) or (H, W, 3) as uint8 (N, 3, size, size) through `to_rgb` and `square`."""
    resized = np.stack([np.asarray(square(to_rgb(Image.fromarray(a)), size)) for a in pixels])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()


def _tensor(pixels_HW3: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1)
