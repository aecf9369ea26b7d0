"""How many copies the audit finds, what it takes for copies that are none, and what pixels' statistics say of treated pictures.

python experiments/audit.py PICTURE [PICTURE ...]

Fashion-MNIST (the full set: Debian's package dataset-fashion-mnist or the hub) and the pictures named, photographs at best, of
which crops are taken that do not overlap. Prints the tables of docs/audit.md; the same pictures in the same order give the
same numbers.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oodream.audit.duplicates import Looks, look, nearest_duplicates
from oodream.audit.shortcuts import discriminability, pixel_statistics
from oodream.core.seeding import generator
from oodream.data.builtin import FASHION, fashion
from oodream.data.images import from_array
from oodream.data.preprocess import square, to_rgb

SEED, SPLITS = 0, 5
HIDDEN = 1000  # training pictures of Fashion-MNIST whose copies are looked for
SHORTER, CELL, WIDTHS = (
    1000,
    250,
    (96, 200),
)  # pixels: a picture's shorter side at most, its cells, and the crop in each
SIZES, STATISTICS_SIZES = (32, 64, 224), (32, 96)

Change = Callable[
    [Image.Image, int], Image.Image
]  # a picture as its file holds it, and the size at which it is wanted


def crops(files: Iterable[Path]) -> list[Image.Image]:
    """One square of random width and place from every cell of every picture."""
    draw, found = random.Random(SEED), []
    for file in files:
        with Image.open(file) as image:
            picture = to_rgb(image)
        share = min(1, SHORTER / min(picture.size))
        picture = picture.resize(
            (round(share * picture.width), round(share * picture.height)), Image.Resampling.BICUBIC
        )
        for top in range(0, picture.height - CELL + 1, CELL):
            for left in range(0, picture.width - CELL + 1, CELL):
                side = draw.randint(*WIDTHS)
                x, y = (start + draw.randint(0, CELL - side) for start in (left, top))
                found.append(picture.crop((x, y, x + side, y + side)))
    return found


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(picture: Image.Image, share: float) -> Image.Image:
    return square(picture, round(share * picture.width))


def moved(picture: Image.Image, x: int, y: int) -> Image.Image:
    """Moved to the left and up; the border is repeated."""
    return Image.fromarray(np.pad(np.asarray(picture), ((0, y), (0, x), (0, 0)), mode="edge")[y:, x:])


def lighter(picture: Image.Image, factor: float = 1, levels: int = 0) -> Image.Image:
    return picture.point(lambda value: min(round(factor * value) + levels, 255))


def cut(picture: Image.Image, share: float) -> Image.Image:
    w, h = picture.size
    return picture.resize(
        picture.size, Image.Resampling.BICUBIC, box=(share * w, share * h, (1 - share) * w, (1 - share) * h)
    )


COPIES: dict[str, Change] = {
    "JPEG 75, the file": lambda p, size: square(jpeg(p, 75), size),
    "JPEG 40, the file": lambda p, size: square(jpeg(p, 40), size),
    "JPEG 75, at size": lambda p, size: jpeg(square(p, size), 75),
    "JPEG 40, at size": lambda p, size: jpeg(square(p, size), 40),
    "scaled to 3/4 and back, at size": lambda p, size: square(scaled(square(p, size), 3 / 4), size),
    "scaled to a half, the file": lambda p, size: square(scaled(p, 1 / 2), size),
    "20 grey levels lighter": lambda p, size: lighter(square(p, size), levels=20),
    "1.2 times as light, cut off at white": lambda p, size: lighter(square(p, size), factor=1.2),
    "moved by a pixel": lambda p, size: moved(square(p, size), 1, 0),
    "moved by a pixel both ways": lambda p, size: moved(square(p, size), 1, 1),
    "cut by 2 % on every side": lambda p, size: square(cut(p, 0.02), size),
}
TREATED: dict[str, Change] = {
    "as it is": square,
    **{
        name: COPIES[name]
        for name in ("JPEG 75, the file", "JPEG 75, at size", "scaled to 3/4 and back, at size")
    },
    "scaled without antialiasing": lambda p, size: p.transform(
        (size, size), Image.Transform.EXTENT, (0, 0, *p.size), Image.Resampling.BILINEAR
    ),
    "grey": lambda p, size: square(p, size).convert("L").convert("RGB"),
}


def pixels(pictures: Iterable[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2)


def looks(x_N3SS: Tensor) -> Looks:
    return look(from_array("pictures", x_N3SS, torch.zeros(len(x_N3SS)), ()))


def plain(seen: Looks) -> Tensor:
    return ~seen.spectrum_NF.any(1)


def recall(change: Change, pictures: list[Image.Image], size: int, seen: Looks) -> str:
    """The share of copies whose partner is their original; the originals are the first rows of `seen`, plain ones do not count."""
    row_N, _ = nearest_duplicates(seen, looks(pixels(change(p, size) for p in pictures)))
    found = row_N == torch.arange(len(pictures))
    return f"{100 * found[~plain(seen)[: len(pictures)]].double().mean().item():.1f} %"


def told(change: Change, pictures: list[Image.Image], size: int) -> str:
    """The mean AUROC over SPLITS by which one half of the pictures is told from the other, changed."""
    as_is, changed = (pixels(f(p, size) for p in pictures) for f in (square, change))
    found = []
    for split in range(SPLITS):
        order = torch.randperm(len(pictures), generator=generator(SEED, "halves", split))
        first, second = order.tensor_split(2)
        found.append(
            discriminability(pixel_statistics(as_is[first]), pixel_statistics(changed[second]), split)[0][
                "together"
            ]
        )
    return f"{100 * fmean(found):.1f} %"


def table(columns: dict[str, Callable[[Change], str]], changes: dict[str, Change]) -> None:
    print(f"\n| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, change in changes.items():
        print(f"| {name} | {' | '.join(measured(change) for measured in columns.values())} |", flush=True)


def repeated(what: str, a: Looks, b: Looks) -> None:
    start = time.process_time()
    row_N, apart_N = nearest_duplicates(a, b)
    count, equal, seconds = int((row_N >= 0).sum()), int((apart_N == 0).sum()), time.process_time() - start
    print(
        f"{what}: {count} of {len(row_N):,} have a partner, {equal} an equal one; {seconds:.1f} s of processor time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    photographs = crops(parser.parse_args().pictures)
    train, test, files = (
        fashion(split, FASHION, size=s, full=True)
        for split, s in (("train", 32), ("test", 32), ("train", 28))
    )
    garments = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in files.batch(range(HIDDEN))]
    seen_train = look(train)
    columns = {"Fashion-MNIST, 32 px": partial(recall, pictures=garments, size=32, seen=seen_train)}
    repeated("test pictures of Fashion-MNIST among those for training", seen_train, look(test))
    for size in SIZES:
        seen = looks(pixels(square(p, size) for p in photographs))
        print(f"{int(plain(seen).sum())} of {len(photographs):,} crops at {size} px are too plain")
        repeated(f"crops at {size} px among themselves", seen, seen)
        columns[f"photographs, {size} px"] = partial(recall, pictures=photographs, size=size, seen=seen)
    table(columns, COPIES)
    halves = {"garments, 32 px": partial(told, pictures=garments, size=32)}
    table(
        halves
        | {f"photographs, {s} px": partial(told, pictures=photographs, size=s) for s in STATISTICS_SIZES},
        TREATED,
    )


if __name__ == "__main__":
    main()
