"""Builds the captioned pictures from which the embedded Stable Diffusion was trained.

    python world/build.py OUT          # under a minute on one core
    oodream fit-decoder OUT --out src/oodream/assets/decoder

Sources (Debian packages; licences in world/README.md): dataset-fashion-mnist, fonts-noto-color-emoji; PyPI
package emoji. What the evaluation calls out-of-distribution never enters: no bag, boot, letter, digit,
photograph, texture or noise, and no Fashion-MNIST test image.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import emoji
from PIL import Image, ImageDraw, ImageFont, ImageStat

from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.preprocess import square, to_rgb

SIZE, PASTE = 32, 96
NEVER = re.compile(
    r"\b(bags?|handbag|purse|pouch|luggage|baggage|backpack|briefcase|suitcase|satchel|boots?|skates?|shoes?|keycap|input|"
    r"letters?|button|symbols?|hundred|place|calendar|number|trade|registered|copyright|information|text|alphabet|digits?|"
    r"shirts?|tshirt|dress|coat|sandals?|jeans|pullover|trousers?|sneakers?|kimono|clothes|am|pm|atm|abc|sign|signs|"
    r"thirty|clock|watch|patterns?|gradients?|cards?|joker)\b"
)
# A third of all emoji are people in variants that 32 pixels do not tell apart.
PEOPLE = re.compile(r"\b(man|woman|men|women|family|couple|kiss|person|people|facing right)\b")
SHARES = {"fashion": 0.3, "emoji": 0.6, "shape": 0.1}
COLOURS = {
    "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (245, 220, 50), "green": (50, 170, 70),
    "blue": (50, 90, 220), "purple": (140, 60, 190), "pink": (245, 130, 180), "brown": (130, 80, 40),
    "grey": (140, 140, 140), "white": (245, 245, 245),
}  # fmt: skip
SHAPES = [
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "heart",
    "diamond",
    "hexagon",
    "crescent",
    "arrow",
]


def emojis(font_file: str) -> Iterator[tuple[str, Image.Image]]:
    """(name, RGBA picture) of every emoji that is not a flag, one of many alike people, or excluded."""
    font = ImageFont.truetype(font_file, 109)
    for text, data in emoji.EMOJI_DATA.items():
        name = data["en"].strip(":").replace("_", " ").replace("-", " ").lower()
        is_flag = any(0x1F1E6 <= ord(char) <= 0x1F1FF for char in text) or "\U000e0067" in text
        if (
            data["status"] != emoji.STATUS["fully_qualified"]
            or "skin tone" in name
            or is_flag
            or PEOPLE.search(name)
            or NEVER.search(name)
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


def world(args: argparse.Namespace) -> Iterator[tuple[str, str, Image.Image]]:
    """(source, caption, picture) of the whole world, in a fixed order."""
    random_ = random.Random(args.seed)
    garments = fashion("train", FASHION_ID, root=args.fashion)
    for row, label in enumerate(garments.labels.tolist()):
        yield (
            "fashion",
            garments.classes[label],
            Image.fromarray(garments.batch([row])[0].permute(1, 2, 0).numpy()),
        )
    for name, image in emojis(args.emoji):
        for _ in range(6):
            background = random_.choice(
                [(0, 0, 0), (0, 0, 0), (255, 255, 255), tuple(random_.randint(0, 255) for _ in range(3))]
            )
            yield "emoji", name, place(image, background, random_)
        for _ in range(2):
            yield "emoji", f"grey {name}", place(image, (0, 0, 0), random_).convert("L").convert("RGB")
    for kind in SHAPES:
        for colour, rgb in COLOURS.items():
            for _ in range(20):
                shade = tuple(min(255, max(0, round(c * random_.uniform(0.8, 1.15)))) for c in rgb)
                background = (0, 0, 0) if random_.random() < 0.7 else (60, 60, 60)
                yield "shape", f"{colour} {kind}", place(shape(kind, shade, random_), background, random_)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--emoji", default="/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    args = parser.parse_args()
    files, counts = [], Counter()
    for source, caption, image in world(args):
        file = Path(source) / f"{counts[source] // 5000:03}" / f"{counts[source]:06}.png"
        counts[source] += 1
        (args.out / file).parent.mkdir(parents=True, exist_ok=True)
        image.save(args.out / file)
        files.append((source, file, caption))
    with (args.out / "metadata.jsonl").open("w") as index:
        for source, file, caption in files:
            weight = round(1e4 * SHARES[source] / counts[source], 5)
            index.write(json.dumps({"file_name": str(file), "text": caption, "weight": weight}) + "\n")
    print(dict(counts))


if __name__ == "__main__":
    main()
