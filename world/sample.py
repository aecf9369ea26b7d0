"""Draws the sample of Fashion-MNIST that the package embeds.

    python world/sample.py src/oodream/assets/fashion

Every class gives 250 of its test images and each in-distribution class 1,500 of its training images, drawn
by seed without replacement. A sheet is a grayscale PNG of 28 x 28 cells: column c holds class c, so the
labels need no file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from oodream.core.seeding import generator
from oodream.data.builtin import DEBIAN, FASHION, FASHION_ID, fashion


def sheet(split: str, classes: tuple[str, ...], per_class: int, seed: int, root: Path) -> Image.Image:
    """`per_class` rows of 28 x 28 images, one column per class."""
    images = fashion(split, classes, root=root, size=28)
    columns = []
    for label, name in enumerate(classes):
        rows = (images.labels == label).nonzero().flatten()
        drawn = rows[
            torch.randperm(len(rows), generator=generator(seed, "fashion-sample", split, name))[:per_class]
        ]
        columns.append(images.batch(drawn)[:, 0].reshape(-1, 28).numpy())
    return Image.fromarray(np.hstack(columns))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", type=Path, default=DEBIAN, help="folder of the full set's IDX files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for split, classes, per_class in (("train", FASHION_ID, 1500), ("test", FASHION, 250)):
        sheet(split, classes, per_class, args.seed, args.root).save(args.out / f"{split}.png", optimize=True)


if __name__ == "__main__":
    main()
