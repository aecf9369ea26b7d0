"""Pictures as people have them (files, PIL images, arrays, tensors, any mixture) as the squares that networks take.

All become PIL images and then go through `images.to_rgb` and `images.square`, as training images do: a picture of another size is
resized by its shorter side, and its centre is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..core.errors import DataError

Picture = Image.Image | np.ndarray | Tensor | str | os.PathLike[str]
CHANNELS = (1, 3, 4)


def is_single(given: Picture | Iterable[Picture]) -> bool:
    """Whether this is a single picture: a path, a PIL image, an array (H, W) or (H, W, C), a tensor (H, W) or (C, H, W)."""
    return (
        given.ndim < 4
        if isinstance(given, (np.ndarray, Tensor))
        else isinstance(given, (Image.Image, str, os.PathLike))
    )


def read_pictures(given: Picture | Iterable[Picture], size: int) -> Iterator[Tensor]:
    """Every picture in order as uint8 (3, size, size).

    Arrays have their channels last, (H, W), (H, W, C) or (B, H, W, C), tensors first, (H, W), (C, H, W) or (B, C, H, W), with C
    grey, RGB or RGBA; they hold uint8, or floats in [0, 1]. An iterable may mix all of these, batches among them. DataError names
    what cannot be read or understood.
    """
    if isinstance(given, (str, os.PathLike)):
        yield _from_file(Path(given), size)
    elif isinstance(given, Image.Image):
        yield _square(given, size)
    elif isinstance(given, (np.ndarray, Tensor)):
        for image in _pictures(given):
            yield _square(image, size)
    elif isinstance(given, Iterable):
        for i, item in enumerate(given):
            if not isinstance(item, (Image.Image, np.ndarray, Tensor, str, os.PathLike)):
                raise DataError(
                    f"Item {i} is a {type(item).__name__}, not a picture: a path, a PIL image, an array or a tensor."
                )
            yield from read_pictures(item, size)
    else:
        raise DataError(
            f"A {type(given).__name__} is no picture: give a path, a PIL image, an array, a tensor, or several."
        )


def _from_file(file: Path, size: int) -> Tensor:
    if file.is_dir():
        raise DataError(f"{file} is a folder; give the files in it: oodream.images.image_files(folder).")
    try:
        return read_image(file, size)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _square(image: Image.Image, size: int) -> Tensor:
    return torch.from_numpy(np.array(square(to_rgb(image), size))).permute(2, 0, 1)


def _pictures(values: np.ndarray | Tensor) -> Iterator[Image.Image]:
    """An array's or a tensor's pictures."""
    kind, shape, form = "array", tuple(values.shape), "(H, W), (H, W, C) or (B, H, W, C)"
    if isinstance(values, Tensor):
        kind, form = "tensor", "(H, W), (C, H, W) or (B, C, H, W)"
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
        values = np.moveaxis(values, -3, -1) if values.ndim > 2 else values
    if values.ndim not in (2, 3, 4) or (values.ndim > 2 and values.shape[-1] not in CHANNELS):
        raise DataError(f"A picture's {kind} has the shape {form} with 1, 3 or 4 channels, not {shape}.")
    if 0 in (shape[1:] if len(shape) == 4 else shape):
        raise DataError(f"A picture of the shape {shape} has no pixels.")
    pixels = _uint8(values)
    for picture in pixels if pixels.ndim == 4 else [pixels]:
        yield Image.fromarray(np.ascontiguousarray(picture[..., 0] if picture.shape[2:] == (1,) else picture))


def _uint8(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(f"Pixels are uint8, or floats in [0, 1], not {values.dtype}.")
    if not np.isfinite(values).all():
        raise DataError("A picture contains NaN or infinity.")
    if (low := values.min()) < 0 or values.max() > 1:
        raise DataError(
            f"Floats are pixels in [0, 1], and these reach from {low:g} to {values.max():g}. Scale them, or give uint8."
        )
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


NOT_PICTURES = {
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
}  # Pillow names these, but cannot read them by itself
SUFFIXES = frozenset(
    ext
    for ext, name in Image.registered_extensions().items()
    if name in Image.OPEN and name not in NOT_PICTURES
)


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """The picture as people see it in 8-bit RGB: EXIF rotation applied, alpha over `background`, deep greyscale scaled.

    Integers of 16 and 32 bits and floats are taken as fractions of the smallest full scale their maximum fits: 1 (floats only),
    255, 65535, else the maximum itself. So 8-bit values stored in 16 bits keep their brightness (a true 16-bit picture below
    256 would be black anyway), while 12-bit values are dark: stretch them to 16 bits first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        values = np.where(np.isfinite(values), values, 0).clip(0)
        peak = values.max()
        scale = next((s for s in ((1, 255, 65535) if image.mode == "F" else (255, 65535)) if peak <= s), peak)
        return Image.fromarray(np.rint(values * (255 / scale)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, background)
        canvas.alpha_composite(rgba)
        return canvas.convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, `size` pixels wide: the shorter side is resized (bicubic, antialiased), the rest is cut away.

    First to its width, then to its height, whatever order Pillow would take: so any other program can do the same to the bit.
    """
    (w, h), side = image.size, min(image.size)
    left, top = (w - side) / 2, (h - side) / 2
    narrow = image.resize((size, h), Image.Resampling.BICUBIC, box=(left, 0, left + side, h))
    return narrow.resize((size, size), Image.Resampling.BICUBIC, box=(0, top, size, top + side))


def read_image(source: Path | BytesIO, size: int) -> torch.Tensor:
    """One image (of an animation the first frame) as uint8 (3, size, size). Raises OSError when it is not a whole image."""
    try:
        with Image.open(source) as image:
            rgb = square(to_rgb(image), size)
    except Exception as error:  # on damaged bytes Pillow's readers raise nearly anything
        raise OSError(str(error) or type(error).__name__) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def image_files(folder: Path) -> list[Path]:
    """All image files below `folder`, sorted by path, hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
