"""The verb `decode`: sampled vectors become images, in batches, with what is needed to know and redraw each one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .decoders.stable import StableDecoder
from .store import progress
from .types import ClassBook, Features, Generated, Outliers


def decode(outliers: Outliers, decoder: StableDecoder, rows: Tensor) -> Iterator[Generated]:
    """The images of `rows` (M,) in batches of the decoder's tile; raises ValueError for vectors of another space."""
    if outliers.space != decoder.book.space:
        raise ValueError(f"The vectors are of space {outliers.space!r} and the decoder of {decoder.book.space!r}. Sample again.")
    tiles = rows.split(decoder.tile)
    for part in progress(tiles, total=len(tiles), what="decode", unit="tile"):
        made = decoder(outliers.z_MD[part], outliers.y_M[part], outliers.seed_M[part])
        yield Generated(images_B3HW=made.images_B3HW, y_B=made.y_B, row_B=part)


def provenance(
    outliers: Outliers, features: Features, book: ClassBook, files: tuple[str, ...], pipeline: str, m: int
) -> dict[str, Any]:
    """What a person may ask of image m: class, prompt, anchor image, distance to the class, cosine to T(y), seed, pipeline."""
    y, anchor = int(outliers.y_M[m]), int(outliers.anchor_M[m])
    cosine = torch.cosine_similarity(outliers.z_MD[m], book.tokens_CD[y], dim=0)
    return {
        "row": m,
        "kind": outliers.kind,
        "class": book.names[y],
        "prompt": book.prompts[y],
        "anchor": files[int(features.index_N[anchor])],
        "anchor_index": int(features.index_N[anchor]),
        "knn_distance": round(float(outliers.knn_M[m]), 6),
        "cosine_to_class": round(float(cosine), 6),
        "seed": int(outliers.seed_M[m]),
        "pipeline": pipeline,
    }
