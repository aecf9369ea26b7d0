"""Pictures as tensors: what `runtime.pictures` reads, channels first, for networks to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..core.errors import DataError
from ..runtime import pictures as arrays
from ..runtime.pictures import Picture, square
from ..runtime.rgb import Depth, to_rgb

__all__ = ["check_size", "read_image", "read_or_measure", "read_pictures", "resize_all"]

SHEET = 2**18  # pixels that are resized together


def check_size(size: int) -> None:
    """DataError unless images can have this width and height in pixels."""
    if size < 1:
        raise DataError(
            f"Images of {size} pixels cannot be read: size is their width and height, at least 1."
        )


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
    """N uint8 arrays (H, W) or (H, W, 3) as uint8 (N, 3, size, size), as `to_rgb` and `square` make them."""
    parts = []
    for (h, w, *_), alike in groupby(pixels, np.shape):
        n = max(1, SHEET // (h * max(w, size)))
        while arrays := list(islice(alike, n)):
            parts.append(_squares(np.stack(arrays), size))
    return torch.cat(parts).contiguous()


def _squares(pixels_N: np.ndarray, size: int) -> Tensor:
    """N arrays of one shape, to the bit as `square` makes each: a row of pixels is resized to the width
    without looking at other rows, and a column to the height without other columns, so that all pictures are
    resized to their width as one sheet, one below the other, and to their height side by side.
    """
    n, h, w, *channels = pixels_N.shape
    if n == 1:
        return _tensor(np.array(square(to_rgb(Image.fromarray(pixels_N[0])), size)))[None]
    side = min(h, w)
    left, top = (w - side) / 2, (h - side) / 2
    below = Image.fromarray(pixels_N.reshape(n * h, w, *channels))
    narrow = below.resize((size, n * h), Image.Resampling.BICUBIC, box=(left, 0, left + side, n * h))
    columns = np.asarray(narrow).reshape(n, h, size, *channels).swapaxes(0, 1)
    beside = Image.fromarray(columns.reshape(h, n * size, *channels))
    low = beside.resize((n * size, size), Image.Resampling.BICUBIC, box=(0, top, n * size, top + side))
    squares = np.asarray(low).reshape(size, n, size, -1).transpose(1, 3, 0, 2)
    return torch.from_numpy(squares.copy()).expand(-1, 3, -1, -1)


def _tensor(pixels_HW3: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1)
