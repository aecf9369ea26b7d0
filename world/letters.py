"""Draws the sheet of letters that the package embeds, from the fonts that matplotlib ships.

    python world/letters.py src/oodream/assets/letters

Row r of the black and white sheet `glyphs.png` is a font, column c a letter; a cell holds the letter's box in
its upper left corner. `glyphs.json` has the fonts' size `em`, the size of a `cell` and the `boxes`: (width,
height) in pixels, by row and column. The fonts' licenses stand in `LICENSE`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from oodream.data.builtin import LETTERS

EM = 192
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10",
    "cmb10", "cmss10", "cmtt10",
)  # fmt: skip


def glyph(font: ImageFont.FreeTypeFont, letter: str) -> Image.Image:
    """The letter in its box, white on black."""
    left, top, right, bottom = map(round, font.getbbox(letter))
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=font)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), EM) for name in FONTS]
    glyphs = [[glyph(font, letter) for letter in LETTERS] for font in fonts]
    width, height = (max(image.size[axis] for row in glyphs for image in row) for axis in (0, 1))
    sheet = Image.new("L", (width * len(LETTERS), height * len(FONTS)))
    for r, row in enumerate(glyphs):
        for c, image in enumerate(row):
            sheet.paste(image, (c * width, r * height))
    out.mkdir(parents=True, exist_ok=True)
    sheet.point(lambda value: 255 * (value > 127)).convert("1").save(out / "glyphs.png", optimize=True)
    facts = {"em": EM, "cell": [width, height], "boxes": [[image.size for image in row] for row in glyphs]}
    (out / "glyphs.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
