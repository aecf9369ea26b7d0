"""Real other things as the decoder draws them: each begins at a real drawing of its thing, and is denoised
towards that thing's own name, as the preset `doodles` makes other things of known drawings.

    python experiments/redrawn.py OUT [--n 1680]

Writes OUT/NAME/ROW.png for `--regularize.outliers real --regularize.real OUT`: what these teach, beside the
real drawings that they begin at, says what the decoder's hand costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

from oodream.data.inputs import DataInputs
from oodream.presets import PRESETS
from oodream.synthesis.decode import make_decoder
from oodream.synthesis.known import Known
from oodream.synthesis.text import name_spans


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--n", type=int, default=1680)
    args = parser.parse_args()
    config = PRESETS["doodles"].config
    world, decode = DataInputs(config).world, config.decode
    prompts = [decode.prompt.format(name) for name in world.classes]
    decoder = make_decoder(
        decode, world.classes, prompts, config.size, "cpu", name_spans(world.classes, prompts, decode.prompt),
        Known(images=lambda: world, baseline=lambda: torch.nn.Identity()),
    )  # fmt: skip
    y_M = torch.arange(args.n) % len(world.classes)
    z_MD, seed_M = decoder.text.vectors(world.classes)[y_M], torch.arange(args.n)
    for rows in torch.arange(args.n).split(64):
        drawn = decoder(z_MD[rows], y_M[rows], seed_M[rows]).images_B3HW
        for row, image in zip(rows.tolist(), drawn, strict=True):
            folder = args.out / world.classes[y_M[row]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{row:05}.png")


if __name__ == "__main__":
    main()
