"""How well the look alone tells image folders from known images: whether other things are of the same origin.

python experiments/look.py [KNOWN OTHER ...]

Every folder is compared with a half of the pictures in KNOWN, and so is the other half, which is the control.
Without folders the known images are the embedded garments, beside the same ones treated in several ways.
Prints a table of AUROCs in percent with 95 % intervals; 50 % means that the look betrays nothing.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from oodream.audit.look import separation
from oodream.config import DecodeConfig
from oodream.core.seeding import generator
from oodream.data.builtin import FASHION_ID, FASHION_NEAR, fashion
from oodream.data.folders import load_ood
from oodream.data.images import Images, from_array
from oodream.synthesis.decode import make_decoder

SIZE, SEED, N = 32, 0, 2000


def halves(images: Images) -> tuple[Images, Images]:
    rows = torch.randperm(len(images), generator=generator(SEED, "halves"))[:N]
    first, second = (images.subset(part) for part in rows.tensor_split(2))
    return first, second


def jpeg(x_B3HW: Tensor, quality: int) -> Tensor:
    pictures = []
    for image in x_B3HW:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        pictures.append(np.asarray(Image.open(file).convert("RGB")))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def garments() -> Iterator[tuple[str, Images]]:
    """The embedded garments: known ones, and what they are compared with."""
    first, second = halves(fashion("train", FASHION_ID, size=SIZE))
    x = second.batch(range(len(second)))
    prompts = [f"A high-quality image of the {name}" for name in FASHION_ID]
    decoder = make_decoder(DecodeConfig(), FASHION_ID, prompts, SIZE, torch.device("cpu"))
    treated = {
        "JPEG 75": jpeg(x, 75),
        "through the embedded decoder's VAE": decoder.reconstruct(x),
        "blurred over 3 pixels": avg_pool2d(x.float(), 3, 1, 1, count_include_pad=False).round().byte(),
    }
    yield "known", first
    yield "the other half, the control", second
    for name, pixels in treated.items():
        yield name, from_array(name, pixels, second.labels, second.classes)
    yield "bags and ankle boots, of the same origin", fashion("test", FASHION_NEAR, size=SIZE).as_ood("near")


def folders(known: Path, others: list[Path]) -> Iterator[tuple[str, Images]]:
    """The pictures of folders, the known ones in two halves."""
    first, second = halves(load_ood(known, SIZE))
    yield "known", first
    yield "the other half, the control", second
    for folder in others:
        yield folder.name, load_ood(folder, SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    args = parser.parse_args()
    sets = folders(args.folders[0], args.folders[1:]) if args.folders else garments()
    _, known = next(sets)
    print("| | look AUROC, % |\n|---|---|")
    for name, images in sets:
        if (measured := separation(known, images, SEED)) is None:
            raise SystemExit(f"{name}: too few images to compare.")
        aurocs, (low, high), _ = measured
        print(
            f"| {name} | {100 * aurocs['together']:.1f} ({100 * low:.1f} to {100 * high:.1f}) |", flush=True
        )


if __name__ == "__main__":
    main()
