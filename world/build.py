"""Builds the captioned pictures from which world/train.py trains the embedded Stable Diffusion.

    python world/build.py OUT          # two minutes on one core

A file OUT/SOURCE.npz holds the pictures of one source, uint8 (N, 32, 32, 3) or (N, 32, 32, 1), their captions
and the source's share of every batch. Sources (licences in world/README.md): Debian packages
dataset-fashion-mnist and fonts-noto-color-emoji; PyPI package emoji; the drawings in this package. What the
evaluation calls out-of-distribution never enters: no bag, boot, letter, digit, photograph, texture or noise,
no Fashion-MNIST test image, and no relative of a known drawing, as a drawing or as an emoji.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageStat
from torch.nn.functional import affine_grid, grid_sample

from oodream.core.seeding import generator
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.doodles import DOODLES_KNOWN, DOODLES_NAMES, DOODLES_WORLD, NEVER_WORDS, doodles
from oodream.data.preprocess import square, to_rgb
from oodream.synthesis.names import hidden

SIZE, PASTE = 32, 96
NEVER = re.compile(
    r"\b(bags?|handbag|purse|pouch|luggage|baggage|backpack|briefcase|suitcase|satchel|boots?|skates?|shoes?|keycap|input|"
    r"letters?|button|symbols?|hundred|place|calendar|number|trade|registered|copyright|information|text|alphabet|digits?|"
    r"shirts?|tshirt|dress|coat|sandals?|jeans|pullover|trousers?|sneakers?|kimono|clothes|am|pm|atm|abc|sign|signs|"
    r"thirty|clock|watch|patterns?|gradients?|cards?|joker|moons?|crescent)\b"
)
# A third of all emoji are people in variants that 32 pixels do not tell apart.
PEOPLE = re.compile(r"\b(man|woman|men|women|family|couple|kiss|person|people|facing right)\b")
SHARES = {"fashion": 0.2, "doodles": 0.5, "emoji": 0.25, "shape": 0.05}
COLOURS = {
    "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (245, 220, 50), "green": (50, 170, 70),
    "blue": (50, 90, 220), "purple": (140, 60, 190), "pink": (245, 130, 180), "brown": (130, 80, 40),
    "grey": (140, 140, 140), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond", "hexagon", "crescent",
    "arrow",
)  # fmt: skip


def emojis(font_file: str) -> Iterator[tuple[str, Image.Image]]:
    """(name, RGBA picture) of every emoji that is not a flag, one of many alike people, excluded, or called
    as a drawing is: a word means one thing.
    """
    import emoji

    font = ImageFont.truetype(font_file, 109)
    names = {
        text: data["en"].strip(":").replace("_", " ").replace("-", " ").lower()
        for text, data in emoji.EMOJI_DATA.items()
    }
    relatives = hidden(names.values(), NEVER_WORDS)
    for text, name in names.items():
        is_flag = any(0x1F1E6 <= ord(char) <= 0x1F1FF for char in text) or "\U000e0067" in text
        if (
            emoji.EMOJI_DATA[text]["status"] != emoji.STATUS["fully_qualified"]
            or "skin tone" in name
            or is_flag
            or PEOPLE.search(name)
            or NEVER.search(name)
            or name in relatives
            or name in DOODLES_NAMES
        ):
            continue
        image = Image.new("RGBA", (136, 128), (0, 0, 0, 0))
        ImageDraw.Draw(image).text((0, 0), text, font=font, embedded_color=True)
        if (box := image.getbbox()) is not None and box[2] < 136:
            yield name, image.crop(box)


def shape(kind: str, colour: tuple[int, int, int], random_: random.Random) -> Image.Image:
    """A filled shape on a transparent canvas, drawn large, rotated at random where that keeps its name."""
    import math

    image, c = Image.new("RGBA", (PASTE, PASTE), (0, 0, 0, 0)), PASTE / 2
    draw = ImageDraw.Draw(image)

    def polygon(n: int, inner: float = 1.0, turn: float = -math.pi / 2) -> list[tuple[float, float]]:
        radius = [c * 0.95 if i % 2 == 0 else c * 0.95 * inner for i in range(n)]
        return [
            (c + r * math.cos(turn + 2 * math.pi * i / n), c + r * math.sin(turn + 2 * math.pi * i / n))
            for i, r in enumerate(radius)
        ]

    box = (3, 3, PASTE - 3, PASTE - 3)
    if kind == "circle":
        draw.ellipse(box, fill=colour)
    elif kind == "ring":
        draw.ellipse(box, outline=colour, width=16)
    elif kind == "crescent":
        draw.ellipse(box, fill=colour)
        draw.ellipse((30, -4, PASTE + 20, PASTE - 16), fill=(0, 0, 0, 0))
    elif kind == "cross":
        draw.rectangle((36, 4, 60, 92), fill=colour)
        draw.rectangle((4, 36, 92, 60), fill=colour)
    elif kind == "heart":
        angles = [i * math.pi / 32 for i in range(64)]
        heights = [
            13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles
        ]
        draw.polygon(
            [
                (c + 2.7 * 16 * math.sin(a) ** 3, c - 5 - 2.7 * h)
                for a, h in zip(angles, heights, strict=True)
            ],
            fill=colour,
        )
    elif kind == "arrow":
        draw.polygon([(4, 36), (50, 36), (50, 12), (92, 48), (50, 84), (50, 60), (4, 60)], fill=colour)
    else:
        sides = {
            "square": (4, 1.0, math.pi / 4),
            "diamond": (4, 1.0, 0.0),
            "triangle": (3, 1.0, -math.pi / 2),
        }
        draw.polygon(
            polygon(*sides.get(kind, (10, 0.4, -math.pi / 2) if kind == "star" else (6, 1.0, 0.0))),
            fill=colour,
        )
    turn = (
        random_.uniform(0, 360) if kind in ("star", "cross", "hexagon", "arrow") else random_.uniform(-8, 8)
    )
    return image.rotate(turn, resample=Image.Resampling.BICUBIC)


def place(image: Image.Image, background: tuple[int, int, int], random_: random.Random) -> Image.Image:
    """The picture at a random size, place and small tilt on a plain background, 32 x 32 RGB.

    A picture that its background swallows (a black outline on black) goes onto white or black instead.
    """
    side = round(PASTE * random_.uniform(0.8, 1.0))
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image = image.rotate(random_.uniform(-6, 6), resample=Image.Resampling.BICUBIC, expand=True)
    image = image.crop((0, 0, min(PASTE, image.width), min(PASTE, image.height)))
    corner = tuple(random_.randint(s // 4, s - s // 4) for s in (PASTE - image.width, PASTE - image.height))
    placed = []
    for colour in (background, (255, 255, 255), (0, 0, 0)):
        canvas = Image.new("RGBA", (PASTE, PASTE), colour)
        canvas.alpha_composite(image, corner)
        placed.append(square(to_rgb(canvas), SIZE))
        if max(ImageStat.Stat(placed[-1].convert("L")).stddev) > 8:
            return placed[-1]
    return placed[0]


Captioned = Iterator[tuple[str, Image.Image]]


def garments(args: argparse.Namespace) -> Captioned:
    """Fashion-MNIST's training images of the known classes, as many of each as asked for."""
    images = fashion("train", FASHION_ID, root=args.fashion)
    for label, name in enumerate(images.classes):
        for row in (images.labels == label).nonzero()[: args.garments, 0].tolist():
            yield name, Image.fromarray(images.batch([row])[0].permute(1, 2, 0).numpy()).convert("L")


def emoji_pictures(args: argparse.Namespace) -> Captioned:
    """Every emoji eight times: six in colour, two in gray on black."""
    random_ = random.Random(args.seed)
    for name, image in emojis(args.emoji):
        for _ in range(6):
            background = random_.choice(
                [(0, 0, 0), (0, 0, 0), (255, 255, 255), tuple(random_.randint(0, 255) for _ in range(3))]
            )
            yield name, place(image, background, random_)
        for _ in range(2):
            yield f"grey {name}", place(image, (0, 0, 0), random_).convert("L").convert("RGB")


def shapes(args: argparse.Namespace) -> Captioned:
    """Filled shapes in ten colours, twenty of each."""
    random_ = random.Random(args.seed)
    for kind in SHAPES:
        for colour, rgb in COLOURS.items():
            for _ in range(20):
                shade = tuple(min(255, max(0, round(c * random_.uniform(0.8, 1.15)))) for c in rgb)
                background = (0, 0, 0) if random_.random() < 0.7 else (60, 60, 60)
                yield f"{colour} {kind}", place(shape(kind, shade, random_), background, random_)


def drawings(args: argparse.Namespace) -> Captioned:
    """Training drawings of the known names and all of the world's, each as it is and twice moved a little; a
    third is called a doodle.
    """
    for images in (doodles(DOODLES_KNOWN, SIZE, "train"), doodles(DOODLES_WORLD, SIZE)):
        x = images.batch(range(len(images)))[:, :1]
        for variant in range(3):
            pictures = x if variant == 0 else moved(x, generator(args.seed, images.name, variant))
            for row, (label, picture) in enumerate(zip(images.labels.tolist(), pictures, strict=True)):
                name = images.classes[label].lower()
                yield (
                    (f"a doodle of a {{{name}}}" if (row + variant) % 3 == 0 else name),
                    Image.fromarray(picture[0].numpy()),
                )


def moved(x_N1HW: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Drawings turned by up to 10 degrees, scaled by up to 12 %, moved by up to 6 %, half mirrored."""
    n = len(x_N1HW)
    turn, scale = (torch.rand(n, generator=g) - 0.5) * 0.35, 0.94 + 0.18 * torch.rand(n, generator=g)
    mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    shift = (torch.rand(n, 2, generator=g) - 0.5) * 0.12
    cos, sin = turn.cos() * scale, turn.sin() * scale
    theta = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(n, 2, 3)
    grid = affine_grid(theta, list(x_N1HW.shape), align_corners=False)
    pictures = grid_sample(x_N1HW.float(), grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return pictures.clamp(0, 255).round().to(torch.uint8)


SOURCES = {"fashion": garments, "doodles": drawings, "emoji": emoji_pictures, "shape": shapes}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--garments", type=int, default=6000, help="of each class, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--emoji", default="/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for source in args.sources:
        captions, pictures = zip(*SOURCES[source](args), strict=True)
        x = np.stack([np.asarray(picture).reshape(SIZE, SIZE, -1) for picture in pictures])
        np.savez_compressed(args.out / f"{source}.npz", pictures=x, captions=captions, share=SHARES[source])
        print(source, len(x), "pictures,", len(set(captions)), "captions")


if __name__ == "__main__":
    main()
