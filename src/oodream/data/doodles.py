"""Drawings of "Quick, Draw!" (Google, CC BY 4.0), 100 of each name, embedded.

About forty names are known classes. Their nearest relatives are near-OOD: nothing learns from a picture of
one. All others are the world, which a decoder may learn and of which outliers may be.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ..core.files import ASSETS, read_text
from .builtin import resize_all
from .images import Images, from_array

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DOODLES_KNOWN", "DOODLES_NAMES", "DOODLES_NEAR", "DOODLES_WORLD", "NEVER_WORDS", "doodles"]

SIDE, EACH, TRAIN = 28, 100, 80
FOLDER = ASSETS / "doodles"
_split = tomllib.loads(read_text(FOLDER / "split.toml"))
DOODLES_NAMES: tuple[str, ...] = tuple(json.loads(read_text(FOLDER / "names.json")))
DOODLES_KNOWN = tuple(_split["near"])
DOODLES_NEAR = tuple(name for relatives in _split["near"].values() for name in relatives)
DOODLES_WORLD = tuple(name for name in DOODLES_NAMES if name not in {*DOODLES_KNOWN, *DOODLES_NEAR})
NEVER_WORDS = (*DOODLES_NEAR, *_split["synonyms"]["words"])
"""names of near-OOD things, and words under which another picture of one could hide"""


def doodles(names: Sequence[str], size: int = 32, split: str = "") -> Images:
    """Drawings of `names` (RGB, light strokes on black), labelled by position in `names`.

    Of every name's 100 drawings the first 80 are `split` "train", the last 20 are "test", and all are "".
    """
    rows = {"train": slice(0, TRAIN), "test": slice(TRAIN, EACH), "": slice(0, EACH)}[split]
    columns = [DOODLES_NAMES.index(name) for name in names]
    drawings = _sheet()[rows][:, columns].reshape(-1, SIDE, SIDE)
    labels = torch.arange(len(names)).repeat(len(drawings) // len(names))
    return from_array(f"doodles-{split or 'all'}", resize_all(drawings, size), labels, tuple(names))


@functools.cache
def _sheet() -> np.ndarray:
    """All drawings, uint8 (100, names, 28, 28)."""
    with Image.open(FOLDER / "drawings.png") as image:
        sheet = np.asarray(image)
    return sheet.reshape(EACH, SIDE, len(DOODLES_NAMES), SIDE).swapaxes(1, 2)
