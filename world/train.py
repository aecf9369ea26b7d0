"""Trains a small Stable Diffusion on the pictures of world/build.py; the same call again goes on.

    python world/build.py pictures python world/train.py pictures decoder batch=1024 unet_lr=1e-3
    unet_steps=100000 unet_seconds=420   # a GPU python world/train.py pictures decoder batch=96 unet_lr=1e-3
    unet_steps=5000                        # a CPU

All options of `oodream fit-decoder` are taken, as name=value.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from oodream.config import FitDecoderConfig
from oodream.core.device import device_of
from oodream.core.options import overlay
from oodream.data.images import Images, from_array
from oodream.synthesis.fit_decoder import fit_decoder

WORLD = FitDecoderConfig(
    vae_channels=(48, 96, 96),
    unet_channels=(112, 192),
    templates=("{}", "a picture of a {}", "A high-quality image of the {}"),
)
"""the embedded decoder's sizes"""


def read(folder: Path) -> tuple[Images, list[str], torch.Tensor]:
    """Pictures, captions and weights of all sources."""
    pictures, captions, weights = [], [], []
    for file in sorted(folder.glob("*.npz")):
        source = np.load(file)
        x = torch.from_numpy(source["pictures"]).permute(0, 3, 1, 2)
        pictures.append(x.expand(-1, 3, -1, -1))
        captions += source["captions"].tolist()
        weights.append(torch.full((len(x),), float(source["share"]) / len(x)))
    x = torch.cat(pictures)
    return (
        from_array("world", x, torch.zeros(len(x), dtype=torch.long), ("world",)),
        captions,
        torch.cat(weights),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE")
    args = parser.parse_args()
    options = (option.partition("=") for option in args.options)
    config = overlay(WORLD, {name: literal(value) for name, _, value in options})
    images, captions, weights = read(args.pictures)
    print(len(images), "pictures,", len(set(captions)), "captions", flush=True)
    print(json.dumps(fit_decoder(images, captions, weights, args.out, config, device_of(config.device))))


def literal(value: str) -> object:
    """A number or a list as JSON writes it, or else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


if __name__ == "__main__":
    main()
