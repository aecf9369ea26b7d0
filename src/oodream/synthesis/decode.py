"""The verb `decode`: sampled vectors become images, in batches or as files, with what is needed to know and redraw each one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..core.progress import progress
from ..core.types import Generated, SampledVectors
from .decoders.stable import StableDecoder


def decode(outliers: SampledVectors, decoder: StableDecoder, rows: Tensor) -> Iterator[Generated]:
    """The images of `rows` (M,) in batches of the decoder's tile; raises ValueError for vectors of another space."""
    check_space(outliers, decoder)
    tiles = rows.split(decoder.tile or decoder.largest_tile())
    for part in progress(tiles, total=len(tiles), what="decode", unit="tile"):
        made = decoder(outliers.z_MD[part], outliers.y_M[part], outliers.seed_M[part])
        yield Generated(images_B3HW=made.images_B3HW, y_B=made.y_B, row_B=part)


def check_space(outliers: SampledVectors, decoder: StableDecoder) -> None:
    """ValueError for vectors of another space than the decoder's."""
    if outliers.space != decoder.book.space:
        raise ValueError(
            f"The vectors are of space {outliers.space!r} and the decoder of {decoder.book.space!r}. Sample again."
        )
