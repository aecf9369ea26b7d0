"""The verb `decode`: sampled vectors become images, in batches or as files, with what is needed to know and redraw each one."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .decoders.stable import StableDecoder
from .store import progress, write_bytes
from .types import ClassBook, Features, Generated, Outliers

FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "png"},
    "jpg": {"format": "jpeg", "quality": 95, "subsampling": 0},
    "webp": {"format": "webp", "lossless": True},
}


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


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """An imagefolder with a file for every row of the outliers, in a folder for every class."""

    outliers: Outliers
    decoder: StableDecoder
    folder: Path
    format: str = "png"

    @cached_property
    def files(self) -> list[Path]:
        """Where the image of every row lies, or will lie."""
        names = self.decoder.book.names
        return [self.folder / f"{slug(names[y])}-{y}" / f"{m:06}.{self.format}" for m, y in enumerate(self.outliers.y_M.tolist())]

    def draw(self, rows: list[int], into: Path | None = None) -> list[Path]:
        """Decodes rows into their files, or into files of the same names in another folder; each whole or not at all."""
        drawn = []
        for made in decode(self.outliers, self.decoder, torch.tensor(rows, dtype=torch.long)):
            assert made.images_B3HW is not None
            for m, pixels in zip(made.row_B.tolist(), made.images_B3HW.permute(0, 2, 3, 1).numpy(), strict=True):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, **FORMATS[self.format])
                drawn.append(into / self.files[m].name if into else self.files[m])
                write_bytes(drawn[-1], buffer.getvalue(), sync=False)
        return drawn

    def hash(self, m: int) -> str | None:
        """The BLAKE2b hash of a row's file, 16 bytes in hexadecimal; None where there is no file."""
        file = self.files[m]
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() if file.exists() else None


def slug(name: str) -> str:
    """A class name as a folder name: no separators, no dots, so that it cannot leave the run folder."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_")
    return plain or hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
