"""A picture as people see it, in 8-bit RGB: upright, without transparency, deep gray scaled.

What takes more than a byte a pixel is worked on in bands of rows, for a picture may have very many pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

__all__ = ["Depth", "is_deep", "peak_of", "stated_white", "to_rgb", "white_of"]

FULL_SCALES = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))  # of integers
FULL_SCALES_OF_FLOATS = (1, 255, 65535)
T = Image.Transpose
UPRIGHT = {
    2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270,
    7: T.TRANSVERSE, 8: T.ROTATE_90,
}  # by EXIF's orientation  # fmt: skip
ORIENTATION, BITS_PER_SAMPLE, MAX_SAMPLE_VALUE = 0x0112, 258, 281
BAND = 1 << 22  # pixels that are worked on together


def to_rgb(image: Image.Image, white: float = 0.0) -> Image.Image:
    """The picture as people see it, in 8-bit RGB: upright by its EXIF, alpha over white, deep gray
    scaled.

    Integers of 16 and 32 bits and floats are divided by `white`, or where that is 0 by what `white_of` gives
    for this picture alone. Higher values are white.
    """
    image = _upright(image)
    deep = is_deep(image)
    if not (deep or image.has_transparency_data):
        return image.convert("RGB")
    if deep:
        white = white or white_of([Depth(peak=peak_of(image), floats=image.mode == "F")])
    rgb = Image.new("RGB", image.size)
    for top, band in _bands(image):
        rgb.paste(_gray(band, white) if deep else _over_white(band), (0, top))
    return rgb


def _gray(image: Image.Image, white: float) -> Image.Image:
    values = np.minimum(_values(image), white)
    values *= 255 / white
    return Image.fromarray(np.rint(values).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """A picture's rows, some at a time, so that work on them takes little memory; and where they begin."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; as it lies where its EXIF is broken."""
    image.load()
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # on damaged EXIF Pillow raises nearly anything
        return image
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


# Deep gray: integers of 16 and 32 bits, and floats


@dataclass(frozen=True, kw_only=True)
class Depth:
    """A deep picture's largest value, and the value of white that its file states (0: none)."""

    peak: float
    floats: bool = False
    stated: float = 0.0


def white_of(depths: Sequence[Depth]) -> float:
    """The value of white in a set of deep pictures, so that all have one scale.

    It is what their files state where all do and no value exceeds it, else the smallest full scale that their
    largest value fits: of integers 8, 10, 12, 14 or 16 bits, of floats 1, 255 or 65535; else the largest
    value itself.
    """
    peak, stated = max(d.peak for d in depths), min(d.stated for d in depths)
    if stated and peak <= (largest := max(d.stated for d in depths)):
        return largest
    scales = FULL_SCALES_OF_FLOATS if all(d.floats for d in depths) else FULL_SCALES
    return float(next((scale for scale in scales if peak <= scale), peak))


def is_deep(image: Image.Image) -> bool:
    """Whether a picture's values take more than a byte."""
    return image.mode == "F" or image.mode.startswith("I")


def _values(image: Image.Image) -> np.ndarray:
    values = np.array(image, dtype=np.float64)
    values[~np.isfinite(values)] = 0
    return np.maximum(values, 0, out=values)


def peak_of(image: Image.Image) -> float:
    """A deep picture's largest value, 0 where all are below it or no numbers."""
    return float(max(_values(band).max() for _, band in _bands(image)))


def stated_white(image: Image.Image, source: Path | BytesIO, peak: float) -> float:
    """What a file says of its value of white: a TIFF's MaxSampleValue or odd bits, a PNG's sBIT; else 0.

    By its format a PNG with an sBIT holds values scaled to 16 bits; those of many cameras do not.
    """
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if value := max(_numbers(tags.get(MAX_SAMPLE_VALUE)), default=0.0):
            return value
        bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=0.0)
        return 2**bits - 1 if 8 < bits < 16 else 0.0
    if image.format == "PNG":
        if isinstance(source, BytesIO):
            bits = _significant_bits(BytesIO(source.getvalue()))
        else:
            with source.open("rb") as file:
                bits = _significant_bits(file)
        white = 2**bits - 1
        return (white if peak <= white else FULL_SCALES[-1]) if 8 < bits < 16 else 0.0
    return 0.0


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, tuple) else (value,)
    return [float(v) for v in values if isinstance(v, (int, float))]


def _significant_bits(file: BinaryIO) -> int:
    """The bits of a PNG's chunk sBIT, which stands before the pixels; 0 where there is none."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT":
            return file.read(1)[0]
        if kind == b"IDAT":
            break
        file.seek(length + 4, os.SEEK_CUR)
    return 0
