"""Drawings of "Quick, Draw!" (Google, CC BY 4.0), 100 of each name, embedded.

About forty names are known classes. Their nearest relatives are near-OOD: nothing learns from a picture of
one. All others are the world, which a decoder may learn and of which outliers may be.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..core.files import ASSETS, parse_json, parse_toml, read_text
from .images import Images, from_array
from .preprocess import resize_all

__all__ = [
    "DOODLES_KNOWN",
    "DOODLES_NAMES",
    "DOODLES_NEAR",
    "DOODLES_WORLD",
    "NEVER_WORDS",
    "doodle_arrays",
    "doodles",
]

SIDE, EACH, TRAIN = 28, 100, 80
FOLDER = ASSETS / "doodles"
_split = parse_toml(read_text(FOLDER / "split.toml"))
DOODLES_NAMES: tuple[str, ...] = tuple(parse_json(read_text(FOLDER / "names.json")))
DOODLES_KNOWN = tuple(_split["near"])
DOODLES_NEAR = tuple(name for relatives in _split["near"].values() for name in relatives)
DOODLES_WORLD = tuple(name for name in DOODLES_NAMES if name not in {*DOODLES_KNOWN, *DOODLES_NEAR})
NEVER_WORDS = (*DOODLES_NEAR, *_split["synonyms"]["words"])
"""names of near-OOD things, and words under which another picture of one could hide"""


def doodle_arrays(names: Sequence[str], split: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Drawings of `names`, uint8 (N, 28, 28), light strokes on black, and their positions in `names` (N,).

    Of every name's 100 drawings the first 80 are `split` "train", the last 20 are "test", and all are "".
    """
    rows = {"train": slice(0, TRAIN), "test": slice(TRAIN, EACH), "": slice(0, EACH)}[split]
    drawings = _sheet()[rows][:, [DOODLES_NAMES.index(name) for name in names]]
    return drawings.reshape(-1, SIDE, SIDE), np.tile(np.arange(len(names)), len(drawings))


def doodles(names: Sequence[str], size: int = 32, split: str = "") -> Images:
    """The drawings of `doodle_arrays` as images of `size` pixels, labelled by position in `names`."""
    drawings, labels = doodle_arrays(names, split)
    images = resize_all(drawings, size)
    return from_array(f"doodles-{split or 'all'}", images, torch.from_numpy(labels), tuple(names))


@functools.cache
def _sheet() -> np.ndarray:
    """All drawings, uint8 (100, names, 28, 28)."""
    with Image.open(FOLDER / "drawings.png") as image:
        sheet = np.asarray(image)
    return sheet.reshape(EACH, SIDE, len(DOODLES_NAMES), SIDE).swapaxes(1, 2)
