"""One picture, from a file, bytes, PIL, an array or a tensor, as the uint8 RGB square that networks take.

Every picture goes through `to_rgb` and `square`, in training and in use, with PyTorch and without, so two
sets can never differ by how they were read: a picture of another size is resized by its shorter side, and its
center is taken. Squares are arrays here; `data.preprocess` makes tensors of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from PIL import Image

from ..core.errors import DataError, shown
from .formats import HEAD, NOT_PICTURES, unread_format
from .rgb import Depth, is_deep, peak_of, stated_white, to_rgb, white_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Picture",
    "is_single",
    "read_or_measure",
    "read_scaled",
    "read_square",
    "square",
    "squares",
]

Picture: TypeAlias = "Image.Image | np.ndarray | Tensor | str | os.PathLike[str] | bytes | Mapping[str, Any]"
BYTES = (bytes, bytearray, memoryview)
KINDS = "a path, the bytes of an image file, a PIL image, an array or a tensor"
CHANNELS = (1, 3, 4)
MAX_PIXELS = 178_956_970  # of a picture, and between the two steps of its resizing: Pillow's own limit
MAX_SCANS = 100  # of a progressive JPEG; every one is a pass over all pixels


# One picture as a square


def square(image: Image.Image, size: int) -> Image.Image:
    """The center square, `size` pixels wide: the shorter side is resized (bicubic, antialiased), the rest is
    cut away.

    It is resized first to its width, then to its height, whatever order Pillow would take, so that any other
    program can do the same to the bit. Raises DataError for a picture so narrow that this would take more
    memory than any picture may.
    """
    (w, h), side = image.size, min(image.size)
    if not side:
        raise DataError(f"A picture of {w} x {h} has no pixels.")
    _check_narrow(image, size)
    left, top = (w - side) / 2, (h - side) / 2
    narrow = image.resize((size, h), Image.Resampling.BICUBIC, box=(left, 0, left + side, h))
    return narrow.resize((size, size), Image.Resampling.BICUBIC, box=(0, top, size, top + side))


def read_square(source: Path | BytesIO, size: int, white: float = 0.0) -> np.ndarray:
    """One picture (of an animation the first frame) as uint8 (size, size, 3); `white` is as in `to_rgb`.

    Raises OSError for what is not a whole picture.
    """
    return read_scaled(source, size, white)[0]


def read_scaled(source: Path | BytesIO, size: int, white: float = 0.0) -> tuple[np.ndarray, bool]:
    """What `read_square` gives, and whether the picture is a deep one that was scaled by itself, for want of
    a `white`.
    """
    pixels, depth = read_or_measure(source, size, white)
    if pixels is not None:
        return pixels, False
    assert depth is not None
    pixels, _ = read_or_measure(source, size, white_of([depth]))
    assert pixels is not None
    return pixels, True


def read_or_measure(
    source: Path | BytesIO, size: int, white: float = 0.0
) -> tuple[np.ndarray | None, Depth | None]:
    """The picture as `read_square` gives it, or for a deep one without a `white` None and its depth."""
    try:
        with Image.open(source) as image:
            _check(image, source)
            _check_narrow(image, size)  # before its pixels are decoded
            if white or not is_deep(image):
                return np.array(square(to_rgb(image, white=white), size)), None
            peak = peak_of(image)
            stated = stated_white(image, source, peak)
            return None, Depth(peak=peak, floats=image.mode == "F", stated=stated)
    except Exception as error:  # on damaged bytes Pillow's readers raise nearly anything
        raise OSError(_why(error, source)) from error


def _check(image: Image.Image, source: Path | BytesIO) -> None:
    """Raises DataError for what should not be decoded: formats that Pillow leaves to other programs, more
    pixels than any picture may have, and a JPEG of very many scans.
    """
    if image.format in NOT_PICTURES:
        raise DataError(f"{image.format}: convert to PNG or JPEG")
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"It has {image.width:,} x {image.height:,} pixels, and may have {MAX_PIXELS:,} in all."
        )
    if image.info.get("progressive") and (scans := _bytes_of(source).count(b"\xff\xda")) > MAX_SCANS:
        raise DataError(f"It is a JPEG of {scans:,} scans, and one of at most {MAX_SCANS} is read.")


def _check_narrow(image: Image.Image, size: int) -> None:
    """Raises DataError for a picture so narrow that it might have too many pixels while it is resized."""
    w, h = image.size
    if size * max(w, h) > MAX_PIXELS:
        raise DataError(f"It has {w:,} x {h:,} pixels, too narrow to be made {size} pixels wide.")


def _bytes_of(source: Path | BytesIO) -> bytes:
    return source.getvalue() if isinstance(source, BytesIO) else source.read_bytes()


def _why(error: Exception, source: Path | BytesIO) -> str:
    """Why a picture cannot be read; a format without a reader is named, whatever suffix its file has."""
    if isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS:
        # Pillow looks before `_check` can; its bound is `MAX_PIXELS`, unless a program has made it less.
        return f"It has more than the {2 * Image.MAX_IMAGE_PIXELS:,} pixels that a picture may have in all."
    head = b""
    if isinstance(error, Image.UnidentifiedImageError):
        if isinstance(source, BytesIO):
            head = source.getvalue()[:HEAD]
        else:
            with source.open("rb") as file:
                head = file.read(HEAD)
    return unread_format(head, "") or str(error) or type(error).__name__


# Pictures as people have them


def is_single(pictures: Picture | Iterable[Picture]) -> bool:
    """Whether this is one picture, and not several: what `squares` takes, without a batch's axis."""
    if isinstance(pictures, np.ndarray) or _is_tensor(pictures):
        return pictures.ndim < 4 and not _is_column(pictures)
    return isinstance(pictures, (Image.Image, str, os.PathLike, Mapping, *BYTES))


def squares(pictures: Picture | Iterable[Picture], size: int, white: float = 0.0) -> Iterator[np.ndarray]:
    """Every picture in order as uint8 (size, size, 3); `white` is as in `to_rgb`.

    A picture is a path, a PIL image, an encoded file's bytes, a dictionary with "bytes" or "path" as
    `datasets` has them, an array or a tensor. Arrays have their channels last, (H, W), (H, W, C) or
    (B, H, W, C). Tensors have them first, (H, W), (C, H, W) or (B, C, H, W). C is 1 (gray), 3 (RGB) or 4
    (RGBA), and the values are uint8, or floats in [0, 1]. An iterable may mix all of these.

    Raises DataError, which names what cannot be read or understood.
    """
    if isinstance(pictures, Mapping):
        yield _from_source(_source_of(pictures), size, white)
    elif isinstance(pictures, BYTES):
        yield _from_source(BytesIO(pictures), size, white)
    elif isinstance(pictures, (str, os.PathLike)):
        yield _from_source(Path(pictures), size, white)
    elif isinstance(pictures, Image.Image):
        yield np.array(square(to_rgb(pictures, white=white), size))
    elif _is_column(pictures):
        yield from squares(pictures.tolist(), size, white)
    elif isinstance(pictures, np.ndarray) or _is_tensor(pictures):
        for image in _from_array(pictures):
            yield np.array(square(to_rgb(image), size))
    elif isinstance(pictures, Iterable):
        for i, item in enumerate(pictures):
            if not (is_single(item) or isinstance(item, np.ndarray) or _is_tensor(item)):
                raise DataError(f"Item {i} is a {type(item).__name__}, and no picture: {KINDS}.")
            yield from squares(item, size, white)
    else:
        raise DataError(f"A {type(pictures).__name__} is no picture: give {KINDS}, or several of these.")


def _source_of(picture: Mapping[str, Any]) -> Path | BytesIO:
    data, path = picture.get("bytes"), picture.get("path")
    if isinstance(data, BYTES):
        return BytesIO(data)
    if isinstance(path, (str, os.PathLike)):
        return Path(path)
    keys = ", ".join(map(repr, picture)) or "nothing"
    raise DataError(f'A dictionary is a picture where it has "bytes" or a "path"; this one has {keys}.')


def _from_source(source: Path | BytesIO, size: int, white: float) -> np.ndarray:
    name = "A picture of bytes" if isinstance(source, BytesIO) else shown(source)
    if isinstance(source, Path) and source.is_dir():
        raise DataError(
            f"{name} is a folder. Give the files in it: "
            "from oodream.data.scan import image_files; image_files(folder)."
        )
    try:
        return read_square(source, size, white)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from error


def _is_tensor(picture: Any) -> TypeGuard[Tensor]:
    """Whether this is a tensor of PyTorch, which whoever holds one has imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(picture, torch.Tensor)


def _is_column(pictures: Any) -> TypeGuard[np.ndarray]:
    """Whether this is an array of paths or files, as tables have them, and no picture itself."""
    return isinstance(pictures, np.ndarray) and pictures.dtype.kind in "OU"


def _from_array(values: Any) -> Iterator[Image.Image]:
    """An array's or a tensor's pictures."""
    kind, shape, form = "array", tuple(values.shape), "(H, W), (H, W, C) or (B, H, W, C)"
    if _is_tensor(values):
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
            f"Floats are pixels in [0, 1], and these reach from {low:g} to {values.max():g}. "
            "Scale them, or give uint8."
        )
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
