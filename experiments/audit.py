"""What the audit finds: copies, copies where there are none, and statistics of treated images.

python experiments/audit.py [--fashion FOLDER] [PICTURE ...]

Garments are the full Fashion-MNIST (Debian's package dataset-fashion-mnist, or its IDX files in FOLDER).
Photographs are square crops, none overlapping another, of the pictures named, or of scikit-learn's two sample
photographs. Prints the tables of docs/audit.md. The same pictures in the same order give the same numbers.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import fmean

import numpy as np
import sklearn.datasets
import torch
from PIL import Image
from torch import Tensor

from oodream.audit.duplicates import Fingerprints, fingerprint, nearest_duplicates
from oodream.audit.shortcuts import discriminability, pixel_statistics
from oodream.core.seeding import generator
from oodream.data.builtin import FASHION, fashion
from oodream.data.images import from_array
from oodream.runtime.pictures import square, to_rgb

SEED, SPLITS = 0, 5
HIDDEN = 1000  # training images of Fashion-MNIST whose copies are looked for
Picture = Image.Image
Change = Callable[[Picture, int], Picture]
"""Of a picture as its file holds it, and the size at which it is wanted."""


@dataclass(frozen=True)
class Grid:
    """How crops are taken: pictures of at most `shorter` pixels, cells of `cell` pixels, a crop in each.

    Crops are `widths` (least, most) pixels wide. `sizes` are those at which copies are looked for, `halves`
    those of the statistics.
    """

    shorter: int
    cell: int
    widths: tuple[int, int]
    sizes: tuple[int, ...]
    halves: tuple[int, ...]


OWN = Grid(shorter=1000, cell=250, widths=(96, 200), sizes=(32, 64, 224), halves=(32, 96))
SAMPLE = Grid(shorter=427, cell=61, widths=(40, 60), sizes=(32,), halves=(32,))


def sample_photographs() -> list[Path]:
    """The photographs that come with scikit-learn."""
    return [Path(sklearn.datasets.__file__).parent / "images" / name for name in ("china.jpg", "flower.jpg")]


def crops(files: Iterable[Path], grid: Grid) -> list[Picture]:
    """One square of random width and place from every cell of every picture."""
    draw, squares = random.Random(SEED), []
    for file in files:
        with Image.open(file) as image:
            picture = to_rgb(image)
        share = min(1, grid.shorter / min(picture.size))
        picture = picture.resize(
            (round(share * picture.width), round(share * picture.height)), Image.Resampling.BICUBIC
        )
        for top in range(0, picture.height - grid.cell + 1, grid.cell):
            for left in range(0, picture.width - grid.cell + 1, grid.cell):
                side = draw.randint(*grid.widths)
                x, y = (start + draw.randint(0, grid.cell - side) for start in (left, top))
                squares.append(picture.crop((x, y, x + side, y + side)))
    return squares


def jpeg(picture: Picture, quality: int) -> Picture:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(picture: Picture, share: float) -> Picture:
    return square(picture, round(share * picture.width))


def moved(picture: Picture, x: int, y: int) -> Picture:
    """Moved to the left and up; the border is repeated."""
    return Image.fromarray(np.pad(np.asarray(picture), ((0, y), (0, x), (0, 0)), mode="edge")[y:, x:])


def lighter(picture: Picture, factor: float = 1, levels: int = 0) -> Picture:
    return picture.point(lambda value: min(round(factor * value) + levels, 255))


def cut(picture: Picture, share: float) -> Picture:
    w, h = picture.size
    box = (share * w, share * h, (1 - share) * w, (1 - share) * h)
    return picture.resize(picture.size, Image.Resampling.BICUBIC, box=box)


COPIES: dict[str, Change] = {
    "JPEG 75, the file": lambda p, size: square(jpeg(p, 75), size),
    "JPEG 40, the file": lambda p, size: square(jpeg(p, 40), size),
    "JPEG 75, at size": lambda p, size: jpeg(square(p, size), 75),
    "JPEG 40, at size": lambda p, size: jpeg(square(p, size), 40),
    "scaled to 3/4 and back, at size": lambda p, size: square(scaled(square(p, size), 3 / 4), size),
    "scaled to a half, the file": lambda p, size: square(scaled(p, 1 / 2), size),
    "20 gray levels lighter": lambda p, size: lighter(square(p, size), levels=20),
    "1.2 times as light, cut off at white": lambda p, size: lighter(square(p, size), factor=1.2),
    "moved by a pixel": lambda p, size: moved(square(p, size), 1, 0),
    "moved by a pixel both ways": lambda p, size: moved(square(p, size), 1, 1),
    "cut by 2 % on every side": lambda p, size: square(cut(p, 0.02), size),
}
SHARED = ("JPEG 75, the file", "JPEG 75, at size", "scaled to 3/4 and back, at size")
TREATED: dict[str, Change] = {
    "as it is": square,
    **{name: COPIES[name] for name in SHARED},
    "scaled without antialiasing": lambda p, size: p.transform(
        (size, size), Image.Transform.EXTENT, (0, 0, *p.size), Image.Resampling.BILINEAR
    ),
    "gray": lambda p, size: square(p, size).convert("L").convert("RGB"),
}


def pixels(pictures: Iterable[Picture]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)


def fingerprints(x_N3SS: Tensor) -> Fingerprints:
    return fingerprint(from_array("pictures", x_N3SS, torch.zeros(len(x_N3SS)), ()))


def plain(prints: Fingerprints) -> Tensor:
    return ~prints.spectrum_NF.any(1)


def recall(change: Change, pictures: list[Picture], size: int, prints: Fingerprints) -> str:
    """The share of copies whose duplicate is their original; the originals are the first rows of `prints`.

    Plain ones do not count.
    """
    row_N, _ = nearest_duplicates(prints, fingerprints(pixels(change(p, size) for p in pictures)))
    right = row_N == torch.arange(len(pictures))
    return f"{100 * right[~plain(prints)[: len(pictures)]].double().mean().item():.1f} %"


def separation(change: Change, pictures: list[Picture], size: int) -> str:
    """The mean AUROC over SPLITS by which one half of the pictures is separated from the other, changed."""
    as_is, changed = (pixels(f(p, size) for p in pictures) for f in (square, change))
    aurocs = []
    for split in range(SPLITS):
        order = torch.randperm(len(pictures), generator=generator(SEED, "halves", split))
        first, second = order.tensor_split(2)
        facts = pixel_statistics(as_is[first]), pixel_statistics(changed[second])
        aurocs.append(discriminability(*facts, split)[0]["together"])
    return f"{100 * fmean(aurocs):.1f} %"


def table(columns: dict[str, Callable[[Change], str]], changes: dict[str, Change]) -> None:
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, change in changes.items():
        print(f"| {name} | {' | '.join(cell(change) for cell in columns.values())} |", flush=True)


def repeated(what: str, a: Fingerprints, b: Fingerprints) -> None:
    start = time.process_time()
    row_N, distance_N = nearest_duplicates(a, b)
    seconds = time.process_time() - start
    count, equal = int((row_N >= 0).sum()), int((distance_N == 0).sum())
    print(
        f"{what}: {count} of {len(row_N):,} have a duplicate, {equal} an equal one; {seconds:.1f} s of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="*", metavar="PICTURE")
    parser.add_argument("--fashion", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    grid = OWN if args.pictures else SAMPLE
    photographs = crops(args.pictures or sample_photographs(), grid)
    parts = ("train", 32), ("test", 32), ("train", 28)
    train, test, files = (fashion(part, FASHION, args.fashion, size, full=True) for part, size in parts)
    garments = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in files.batch(range(HIDDEN))]
    prints = fingerprint(train)
    copies = {"Fashion-MNIST, 32 px": partial(recall, pictures=garments, size=32, prints=prints)}
    repeated("test images of Fashion-MNIST among those for training", prints, fingerprint(test))
    for size in grid.sizes:
        prints = fingerprints(pixels(square(p, size) for p in photographs))
        print(f"{int(plain(prints).sum())} of {len(photographs):,} crops at {size} px are too plain")
        repeated(f"crops at {size} px among themselves", prints, prints)
        copies[f"photographs, {size} px"] = partial(recall, pictures=photographs, size=size, prints=prints)
    table(copies, COPIES)
    halves = {"garments, 32 px": partial(separation, pictures=garments, size=32)}
    halves |= {f"photographs, {s} px": partial(separation, pictures=photographs, size=s) for s in grid.halves}
    table(halves, TREATED)


if __name__ == "__main__":
    main()
