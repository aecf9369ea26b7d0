"""Image sets that need no download: a sample of Fashion-MNIST (the full set where it is found) and OOD sets.

Fashion-MNIST serves as in-distribution data (8 classes) and near-OOD (bag, ankle boot). Far-OOD are
scikit-learn's handwritten digits and sample photographs, letters of an embedded sheet, procedural textures,
and noise. All become RGB through `runtime.pictures.square`, the transform that a folder of files goes
through.
"""

from __future__ import annotations

import colorsys
import functools
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..core.errors import DataError
from ..core.files import ASSETS, read_text
from ..core.seeding import derive, generator
from .images import Images, from_array
from .preprocess import resize_all

__all__ = [
    "DEBIAN",
    "FAR_SETS",
    "FASHION",
    "FASHION_ID",
    "FASHION_NEAR",
    "LETTERS",
    "NEAR",
    "digits",
    "fashion",
    "fashion_arrays",
    "letters",
    "noise",
    "photos",
    "textures",
]

FASHION = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
FASHION_ID, FASHION_NEAR = FASHION[:8], FASHION[8:]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HUB = "zalando-datasets/fashion_mnist"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


# Fashion-MNIST


def fashion(
    split: str, classes: Sequence[str], root: Path | None = None, size: int = 32, full: bool = False
) -> Images:
    """Fashion-MNIST images of `classes`, as `fashion_arrays` has them, in squares of `size` pixels."""
    images, labels = fashion_arrays(split, classes, root, full)
    return from_array(f"fashion-{split}", resize_all(images, size), torch.from_numpy(labels), classes)


def fashion_arrays(
    split: str, classes: Sequence[str], root: Path | None = None, full: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST images (N, 28, 28) of `classes` and their labels (N,), by position in `classes`; `split`
    is "train" or "test".

    By default they are the embedded sample's: 1,500 training images of each class of `FASHION_ID`, 250 test
    images of every class. With `root` they are the full set's, from the IDX files there. With `full` they
    are the full set's, from Debian's folder or else the hub.

    Raises DataError when they are not to be had, are damaged, or lack a class.
    """
    if split not in ("train", "test") or not set(classes) <= set(FASHION):
        raise DataError(f"Fashion-MNIST has the splits train and test and the classes {', '.join(FASHION)}.")
    images, labels = _full(split, root) if full or root else _sample(split)
    if missing := [c for c in classes if FASHION.index(c) not in labels]:
        raise DataError(
            f"Fashion-MNIST {split}: no images of {', '.join(missing)} here; the full set has them."
        )
    keep = np.isin(labels, [FASHION.index(c) for c in classes])
    position = {FASHION.index(c): i for i, c in enumerate(classes)}
    return images[keep], np.array([position[label] for label in labels[keep].tolist()])


def _sample(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of the embedded sheet: one column of images per class."""
    with Image.open(ASSETS / "fashion" / f"{split}.png") as image:
        sheet = np.asarray(image)
    height, width = sheet.shape[0] // 28, sheet.shape[1] // 28
    images = sheet.reshape(height, 28, width, 28).swapaxes(1, 2).reshape(-1, 28, 28)
    return images, np.tile(np.arange(width), height)


def _full(split: str, root: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of the full set."""
    base = root or DEBIAN
    prefix = "train" if split == "train" else "t10k"
    # Debian and the original keep the files gzipped in one folder; torchvision puts them, unpacked too, below
    # FashionMNIST/raw.
    for folder in (base, base / "FashionMNIST" / "raw", base / "raw"):
        for suffix in (".gz", ""):
            files = [
                folder / f"{prefix}-{kind}{suffix}" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
            ]
            if all(file.is_file() for file in files):
                images, labels = _idx(files[0], 3), _idx(files[1], 1)
                if len(images) != len(labels):
                    raise DataError(
                        f"{files[0]} has {len(images)} images, {files[1]} {len(labels)} labels. "
                        "Fetch both again."
                    )
                return images, labels
    if root is not None:
        raise DataError(
            f"{root} has no {prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte, with or without .gz."
        )
    return _from_hub(split)


def _idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not; DataError when it is damaged."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        shape = np.frombuffer(data, ">u4", count=ndim, offset=4)
        if data[:4] != bytes([0, 0, 8, ndim]):
            raise ValueError(f"it is not an IDX file of {ndim} dimensions")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}). Fetch it again.") from error


def _from_hub(split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        import datasets

        data = datasets.load_dataset(HUB, split=split)
    except Exception as error:  # not installed, not reachable, or damaged: to a reader it is one case
        raise DataError(
            "The full Fashion-MNIST is not here. Three ways to get it: install Debian's package "
            "dataset-fashion-mnist; name a folder that holds its IDX files; or, in a clone, pip install "
            f"'.[hub]' and be online ({HUB}: {error})."
        ) from error
    return np.stack([np.asarray(image) for image in data["image"]]), np.array(data["label"])


# OOD sets


def digits(size: int = 32, n: int = 1000, seed: int = 0) -> Images:
    """Up to `n` of scikit-learn's 1,797 handwritten digits (8 x 8, light on black)."""
    from sklearn.datasets import load_digits

    arrays = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    return _some(
        from_array("digits", resize_all(arrays, size), torch.zeros(len(arrays)), ()), "digits", n, seed
    )


def letters(size: int = 32, n: int = 1000, seed: int = 0) -> Images:
    """`n` letters A-Z and a-z, light gray on black, at random sizes and places, turned by up to 15 degrees.

    They are scaled from an embedded sheet of 14 typefaces, and drawn at twice the size or 128 pixels.
    """
    sheet, em, (width, height), boxes = glyphs()
    side = max(2 * size, 128)

    def draw(random: np.random.Generator) -> np.ndarray:
        row, scale = random.choice(len(boxes)), random.uniform(0.5, 0.9) * side / em
        column, gray = random.integers(len(LETTERS)), int(random.integers(150, 256))
        w, h = boxes[row][column]
        left, top = width * int(column), height * int(row)
        glyph = sheet.crop((left, top, left + w, top + h)).convert("L")
        glyph = glyph.resize((round(w * scale), round(h * scale)), Image.Resampling.BICUBIC)
        x, y = (side - glyph.width, side - glyph.height) * random.uniform(0.25, 0.75, 2)
        image = Image.new("L", (side, side))
        image.paste(gray, (round(x), round(y)), glyph)
        return np.asarray(image.rotate(random.uniform(-15, 15), resample=Image.Resampling.BICUBIC))

    return _drawn("letters", draw, size, n, seed)


@functools.cache
def glyphs() -> tuple[Image.Image, int, tuple[int, int], list[list[tuple[int, int]]]]:
    """The sheet of letters, its fonts' size, a cell's size, and (width, height) by row and column."""
    facts = json.loads(read_text(ASSETS / "letters" / "glyphs.json"))
    with Image.open(ASSETS / "letters" / "glyphs.png") as image:
        image.load()
    return image, facts["em"], tuple(facts["cell"]), facts["boxes"]


def photos(size: int = 32, n: int = 1000, seed: int = 0) -> Images:
    """`n` square patches, 48 to 427 pixels wide, of scikit-learn's two sample photographs.

    They show a temple roof and a flower.
    """
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images

    def draw(random: np.random.Generator) -> np.ndarray:
        picture = pictures[random.integers(len(pictures))]
        height, width = picture.shape[:2]
        side = round(48 * (height / 48) ** random.random())
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        return picture[top : top + side, left : left + side]

    return _drawn("photos", draw, size, n, seed)


def textures(size: int = 32, n: int = 1000, seed: int = 0) -> Images:
    """`n` colored stripes, checkerboards, rings, gradients, fractal clouds and Voronoi cells.

    They are drawn at twice the size.
    """
    from scipy.spatial import KDTree

    side = 2 * size

    def draw(random: np.random.Generator) -> np.ndarray:
        angle, frequency = random.uniform(0, 2 * np.pi), random.uniform(2, 8)
        along, across = _axes(side, angle)
        kind = random.choice(["stripes", "checkers", "rings", "gradient", "clouds", "cells"])
        if kind == "stripes":
            field = _wave(along * frequency, random)
        elif kind == "checkers":
            field = (np.floor(along * frequency) + np.floor(across * frequency)) % 2
        elif kind == "rings":
            field = _wave(
                np.hypot(along - random.uniform(-0.5, 0.5), across - random.uniform(-0.5, 0.5)) * frequency,
                random,
            )
        elif kind == "gradient":
            field = (along - along.min()) / np.ptp(along)
        elif kind == "clouds":
            field = _clouds(side, random)
        else:
            centres = random.uniform(-0.6, 0.6, (round(frequency**2), 2))
            _, nearest = KDTree(centres).query(np.stack([along, across], axis=-1))
            field = random.random(len(centres))[nearest]
        return _colored(field, random)

    return _drawn("textures", draw, size, n, seed)


def noise(size: int = 32, n: int = 1000, seed: int = 0) -> Images:
    """`n` images of independent pixels: uniform, or Gaussian around mid-gray with a random spread."""

    def draw(random: np.random.Generator) -> np.ndarray:
        if random.random() < 0.5:
            return random.integers(0, 256, (size, size, 3), dtype=np.uint8)
        return random.normal(127.5, random.uniform(20, 80), (size, size, 3)).clip(0, 255).astype(np.uint8)

    return _drawn("noise", draw, size, n, seed)


NEAR = "bags and ankle boots of Fashion-MNIST"
FAR_SETS: dict[str, tuple[Callable[[int, int, int], Images], str]] = {
    "digits": (digits, "handwritten digits of scikit-learn"),
    "letters": (letters, "letters of fourteen typefaces"),
    "photos": (photos, "patches of scikit-learn's sample photographs"),
    "textures": (textures, "procedural textures in colour"),
    "noise": (noise, "uniform and Gaussian noise"),
}


def _some(images: Images, name: str, n: int, seed: int) -> Images:
    """`n` of the images at random (all when there are no more), as OOD."""
    return images.subset(torch.randperm(len(images), generator=generator(seed, name))[:n]).as_ood(name)


def _drawn(
    name: str, draw: Callable[[np.random.Generator], np.ndarray], size: int, n: int, seed: int
) -> Images:
    """`n` drawn images as OOD. Each has its own random numbers, so image i is the same whatever `n` is."""
    arrays = (draw(np.random.default_rng(derive(seed, name, i))) for i in range(n))
    return from_array(name, resize_all(arrays, size), torch.zeros(n), ()).as_ood()


def _axes(side: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (side, side) from -0.5 to 0.5 along two axes turned by `angle`."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _wave(phase: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A wave of `phase` (in periods) between 0 and 1, from soft to hard-edged."""
    return 0.5 + 0.5 * np.tanh(random.uniform(0.5, 8) * np.sin(2 * np.pi * (phase + random.random())))


def _clouds(side: int, random: np.random.Generator) -> np.ndarray:
    """Fractal noise between 0 and 1: random grids of 2, 4, 8, … cells, of ever half the weight."""
    field = np.zeros((side, side))
    for octave in range(1, 7):
        grid = Image.fromarray(random.random((2**octave + 1,) * 2, dtype=np.float32))
        field += np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC)) / 2**octave
    return (field - field.min()) / np.ptp(field)


def _colored(field: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A field (S, S) in [0, 1] as uint8 (S, S, 3), along a path through three colours of different hue."""
    start = random.random()
    colours = np.array(
        [colorsys.hsv_to_rgb((start + i / 3) % 1, *random.uniform(0.2, 1, 2)) for i in range(3)]
    )
    channels = [np.interp(field, (0, 0.5, 1), colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1) * 255).astype(np.uint8)
