"""Images of coloured clouds, and what can be done to them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from oodream.data.folders import load_ood
from oodream.data.images import Images, ImageSet, from_array


def clouds(n: int, seed: int, size: int = 32, detail: int = 6) -> list[Image.Image]:
    """Different images of coloured clouds."""
    g = np.random.default_rng(seed)
    grids = (Image.fromarray(g.integers(0, 256, (detail, detail, 3), dtype=np.uint8)) for _ in range(n))
    return [grid.resize((size, size), Image.Resampling.BICUBIC) for grid in grids]


def images(
    pictures: list[Image.Image],
    name: str = "set",
    labels: list[int] | None = None,
    classes: tuple[str, ...] = (),
) -> Images:
    x = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)
    return from_array(name, x, torch.tensor(labels or [0] * len(pictures)), classes)


def sets(**groups: tuple[str, Images]) -> list[ImageSet]:
    """Image sets from NAME=(group, images)."""
    return [ImageSet(name=name, group=group, images=x) for name, (group, x) in groups.items()]


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def resized(picture: Image.Image, share: float) -> Image.Image:
    side = round(share * picture.width)
    return picture.resize((side, side), Image.Resampling.BILINEAR).resize(
        picture.size, Image.Resampling.BICUBIC
    )


def shifted(picture: Image.Image, dx: int, dy: int) -> Image.Image:
    x = np.pad(np.asarray(picture), ((1, 1), (1, 1), (0, 0)), mode="edge")
    return Image.fromarray(x[1 + dy : 1 + dy + picture.height, 1 + dx : 1 + dx + picture.width])


def photographs(n: int, seed: int) -> list[Image.Image]:
    """Clouds with grain, as cameras make it."""
    g = np.random.default_rng(seed)
    grain = g.normal(0, 6, (n, 32, 32, 3))
    return [
        Image.fromarray((np.asarray(p) + e).clip(0, 255).astype(np.uint8))
        for p, e in zip(clouds(n, seed), grain, strict=True)
    ]


def saved(folder: Path, pictures: list[Image.Image], suffix: str = "png", **options: int) -> Images:
    """The pictures as files in a new folder, read as an OOD set."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:03}.{suffix}", **options)
    return load_ood(folder, 32)
