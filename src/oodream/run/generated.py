"""run.generated."""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..config import DecodeConfig
from ..core.distributed import Shard
from ..core.files import load_tensors, save_tensors, write_bytes
from ..core.progress import progress
from ..core.types import ClassBook, Features, SampledVectors
from ..synthesis.decode import check_space, decode
from ..synthesis.decoders.stable import StableDecoder

SHARD = 256  # latents in a file
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"format": "png"},
    "jpg": {"format": "jpeg", "quality": 95, "subsampling": 0},
    "webp": {"format": "webp", "lossless": True},
}


def provenance(
    outliers: SampledVectors,
    features: Features,
    book: ClassBook,
    files: tuple[str, ...],
    pipeline: str,
    m: int,
) -> dict[str, Any]:
    """What a person may ask of image m: class, prompt, anchor image, distance to the class, cosine to T(y),
    seed, pipeline.
    """
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
class GeneratedFiles(ABC):
    """The files of what is decoded from a run's vectors: `files[m]` is where row m lies, or will lie.

    What is drawn together has one file: `block` rows, of which processes take turns.
    """

    outliers: SampledVectors
    decoder: StableDecoder
    folder: Path

    @property
    def block(self) -> int:
        """Rows that one process draws at a time."""
        return self.decoder.tile or self.decoder.largest_tile()

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The file of every row."""

    def missing(self, part: Shard) -> list[int]:
        """Those of a part's rows that have no file yet."""
        there = {file: file.exists() for file in dict.fromkeys(self.files)}
        return [m for m in part.rows(len(self.files), self.block).tolist() if not there[self.files[m]]]

    @abstractmethod
    def draw(self, rows: list[int], into: Path | None = None) -> list[Path]:
        """Decodes rows into their files, or into files in another folder; each whole or not at all. Returns
        the files.
        """

    def hash(self, file: Path) -> str | None:
        """The BLAKE2b hash of a file, 16 bytes in hexadecimal; None where there is none."""
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() if file.exists() else None


@dataclass(frozen=True, kw_only=True)
class ImageFiles(GeneratedFiles):
    """An imagefolder with a file for every row, in a folder for every class."""

    format: str = "png"

    @cached_property
    def files(self) -> list[Path]:
        names = self.decoder.book.names
        return [
            self.folder / f"{slug(names[y])}-{y}" / f"{m:06}.{self.format}"
            for m, y in enumerate(self.outliers.y_M.tolist())
        ]

    def draw(self, rows: list[int], into: Path | None = None) -> list[Path]:
        drawn = []
        for made in decode(self.outliers, self.decoder, torch.tensor(rows, dtype=torch.long)):
            assert made.images_B3HW is not None
            for m, pixels in zip(
                made.row_B.tolist(), made.images_B3HW.permute(0, 2, 3, 1).numpy(), strict=True
            ):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, **FORMATS[self.format])
                drawn.append(into / self.files[m].name if into else self.files[m])
                write_bytes(drawn[-1], buffer.getvalue(), sync=False)
        return drawn


@dataclass(frozen=True, kw_only=True)
class LatentShards(GeneratedFiles):
    """Safetensors files of `SHARD` rows each: the latents (B, F, h, w), float16, and their rows."""

    @property
    def block(self) -> int:
        return SHARD

    @cached_property
    def files(self) -> list[Path]:
        return [self.folder / f"latents-{m // SHARD:05}.safetensors" for m in range(len(self.outliers))]

    def draw(self, rows: list[int], into: Path | None = None) -> list[Path]:
        """As for pictures; single rows of a shard only into another folder."""
        drawn, wanted = [], torch.tensor(rows, dtype=torch.long)
        for part in (
            wanted.split(1)
            if into
            else [wanted[wanted // SHARD == shard] for shard in (wanted // SHARD).unique()]
        ):
            o, first = self.outliers, int(part[0])
            check_space(o, self.decoder)
            tiles = part.split(self.decoder.tile or self.decoder.largest_tile())
            steps = progress(tiles, total=len(tiles), what=self.files[first].stem, unit="tile")
            made = [
                self.decoder.latents(o.z_MD[tile], o.y_M[tile], o.seed_M[tile]).latents_BFHW for tile in steps
            ]
            drawn.append(into / f"latent-{first:06}.safetensors" if into else self.files[first])
            save_tensors(
                drawn[-1], {"latents_BFHW": torch.cat([x for x in made if x is not None]), "row_B": part}
            )
        return drawn


OUTPUTS = ("images", "latents")


def drawing(
    config: DecodeConfig, outliers: SampledVectors, decoder: StableDecoder, run: Path
) -> GeneratedFiles:
    """What a run draws, where it lies in the run's folder."""
    told: Any = {"outliers": outliers, "decoder": decoder, "folder": run / imagined(config)}
    return ImageFiles(**told, format=config.format) if config.output == "images" else LatentShards(**told)


def imagined(config: DecodeConfig) -> str:
    """The folder of what is imagined, below the run's."""
    return f"{config.output}/imagined"


def latent_rows(files: Sequence[Path]) -> Callable[[Tensor], Tensor]:
    """Latents by row from files of `SHARD` rows each; the files are mapped, not read, so memory does not grow
    with them.
    """
    shards = [load_tensors(file)["latents_BFHW"] for file in files]

    def read(rows: Tensor) -> Tensor:
        return (
            torch.stack([shards[m // SHARD][m % SHARD] for m in rows.tolist()])
            if len(rows)
            else shards[0][:0]
        )

    return read


def slug(name: str) -> str:
    """A class name as a folder name: no separators, no dots, so that it cannot leave the run folder."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_")
    return plain or hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
