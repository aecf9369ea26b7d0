"""Measures the embedded decoder and draws what it knows; the model card quotes what this prints.

    python world/measure.py src/oodream/assets/decoder     # half an hour on one core

As asked: of the images of a plain prompt, which share does a classifier of real training images take for
what the prompt names? Beside it stands the same classifier's share on real held-out images. Copied: how far
is a generated image from its nearest training image, and how far is a real held-out image?

The grids garments.png, world.png and drawings.png go to the folder: the first images of every prompt, none
chosen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from build import drawings as training_drawings
from PIL import Image, ImageDraw
from torch import Tensor, nn

from oodream.config import PROMPT, Optimisation, TrainConfig
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.doodles import DOODLES_KNOWN, DOODLES_WORLD, doodles
from oodream.data.images import Images
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.training.sources import Source
from oodream.training.train import make_loss, train

WORLD = (
    "cat face|horse face|rabbit face|tropical fish|black bird|red apple|lemon|tomato|ear of corn|"
    "soft ice cream|croissant|popcorn|racing car|small airplane|rocket|locomotive|houses|"
    "deciduous tree|christmas tree|rose|sunflower|sun with face|cloud with rain|fire|red heart|"
    "blue star|green square|yellow circle|purple triangle|loudly crying face|clown face|alien|ghost|"
    "robot|closed umbrella|game die|diya lamp|open book|bell|balloon|grey cat face|grey racing car|"
    "grey rocket|grey rose|grey robot|grey open book|grey deciduous tree|grey balloon"
).split("|")
GENERATED, REAL = "generated", "real, held out"


def judge(images: Images, epochs: int) -> nn.Module:
    """A classifier of real images, trained as a run's baseline is."""
    config = TrainConfig(optimisation=Optimisation(epochs=epochs))
    source, loss = Source(role="known", data=images), make_loss(("cross_entropy",))
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        return train([source], config, 0, torch.device("cpu"), state, "judge", loss=loss).network.eval()


def hits(network: nn.Module, images_N3HW: Tensor, label_N: Tensor) -> Tensor:
    """Which of the images (N,) the classifier takes for their label."""
    with torch.no_grad():
        answers = [network(part).logits_BC.argmax(1) for part in images_N3HW.split(256)]
    return torch.cat(answers) == label_N


def by_name(hit_N: Tensor, label_N: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The share of hits of every name."""
    return {name: round(hit_N[label_N == c].float().mean().item(), 3) for c, name in enumerate(names)}


def nearest(images: Tensor, others: Tensor) -> dict[str, float]:
    """Root mean square distance per pixel (0-255) from each image to the nearest of the others: the smallest
    and the middle one.
    """
    a, b = (x.float().mean(1).flatten(1) for x in (images, others))
    distance = torch.cat([torch.cdist(part, b).min(1).values for part in a.split(128)]) / a.shape[1] ** 0.5
    return {"min": round(distance.min().item(), 1), "median": round(distance.median().item(), 1)}


def grid(
    cells: Sequence[Tensor], captions: Sequence[str], columns: int, scale: int, colours: int = 256
) -> Image.Image:
    """Cells of pictures side by side (n, 3, H, W), each with a caption below, in so many colours."""
    n, _, height, width = cells[0].shape
    side, line = width * scale, 14
    cell = (n * (side + 2) + 2, height * scale + line)
    canvas = Image.new("RGB", (columns * cell[0], -(-len(cells) // columns) * cell[1]), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (pictures, caption) in enumerate(zip(cells, captions, strict=True)):
        x, y = i % columns * cell[0], i // columns * cell[1]
        for k, picture in enumerate(pictures):
            drawn = Image.fromarray(picture.permute(1, 2, 0).numpy())
            canvas.paste(drawn.resize((side, side), Image.Resampling.NEAREST), (x + k * (side + 2), y))
        pen.text((x + 2, y + side + 1), caption[: cell[0] // 6], fill="black")
    return canvas.quantize(colours, dither=Image.Dither.NONE)


def plain(source: str, names: Sequence[str], per_name: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) of the names' plain prompts, `per_name` of each in turn, and labels (N,)."""
    names = [name.lower() for name in names]
    label_N = torch.arange(len(names)).repeat_interleave(per_name)
    prompts = [PROMPT.format(names[c]) for c in label_N.tolist()]
    return StableDecoder(source, names=names[:1]).plain(prompts, torch.arange(len(label_N))), label_N


def garments(args: argparse.Namespace) -> dict[str, object]:
    """What the prompts of Fashion-MNIST's classes give."""
    generated, y = plain(args.decoder, FASHION_ID, args.per_class)
    first = [generated[y == c][:12] for c in range(len(FASHION_ID))]
    grid(first, FASHION_ID, 1, 3).save(args.out / "garments.png", optimize=True)
    real, test = (fashion(split, FASHION_ID, full=True) for split in ("train", "test"))
    network = judge(real, args.epochs)
    held_out = test.batch(range(len(test)))
    hit, test_hit = hits(network, generated, y), hits(network, held_out, test.labels)
    shown, rows = real.batch(range(len(real))), torch.randperm(len(test))[: len(generated)]
    return {
        "generated": len(generated),
        "as_asked": {GENERATED: share(hit), REAL: share(test_hit)},
        "by_name": {GENERATED: by_name(hit, y, FASHION_ID), REAL: by_name(test_hit, test.labels, FASHION_ID)},
        "nearest_training_image": {
            GENERATED: nearest(generated, shown),
            REAL: nearest(held_out[rows], shown),
        },
    }


def drawings(args: argparse.Namespace) -> dict[str, object]:
    """What the prompts of all drawn things give. Of known things a fifth of the drawings is held out from the
    decoder, of the world's none: so only known ones say how near an unseen drawing is.
    """
    names = (*DOODLES_KNOWN, *DOODLES_WORLD)
    generated, y = plain(args.decoder, names, args.per_name)
    real, test = (doodles(names, split=split) for split in ("train", "test"))
    network = judge(real, args.drawing_epochs)
    held_out = test.batch(range(len(test)))
    hit, test_hit = hits(network, generated, y), hits(network, held_out, test.labels)
    cells = [torch.cat([generated[y == c][:2], held_out[test.labels == c][:1]]) for c in range(len(names))]
    scores = [f"{name} {hit[y == c].sum()}/{args.per_name}" for c, name in enumerate(names)]
    grid(cells, scores, 12, 2, 16).save(args.out / "drawings.png", optimize=True)
    pictures = np.stack([np.asarray(picture) for _, picture in training_drawings(args)])
    shown = torch.from_numpy(pictures)[:, None]
    known, known_held_out = y < len(DOODLES_KNOWN), test.labels < len(DOODLES_KNOWN)
    return {
        "generated": len(generated),
        "as_asked": {GENERATED: share(hit), REAL: share(test_hit)},
        "as_asked_known": {GENERATED: share(hit[known]), REAL: share(test_hit[known_held_out])},
        "by_name": {GENERATED: by_name(hit, y, names), REAL: by_name(test_hit, test.labels, names)},
        "nearest_training_image": {
            GENERATED: nearest(generated, shown),
            f"{GENERATED}, known": nearest(generated[known], shown),
            REAL: nearest(held_out[known_held_out], shown),
        },
    }


def world(args: argparse.Namespace) -> dict[str, object]:
    """A picture of each of some other things, to look at."""
    images, _ = plain(args.decoder, WORLD, 1)
    grid(list(images[:, None]), WORLD, 12, 3).save(args.out / "world.png", optimize=True)
    return {"generated": len(images)}


def share(hit_N: Tensor) -> float:
    return round(hit_N.float().mean().item(), 4)


PARTS = {"garments": garments, "drawings": drawings, "world": world}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the grids")
    parser.add_argument("--decoder", default="embedded")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--per-class", type=int, default=25, help="images of each garment")
    parser.add_argument("--per-name", type=int, default=8, help="images of each drawn thing")
    parser.add_argument("--epochs", type=int, default=2, help="of the classifier of garments")
    parser.add_argument("--drawing-epochs", type=int, default=8, help="of the classifier of drawings")
    parser.add_argument("--seed", type=int, default=0, help="that world/build.py had")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({part: PARTS[part](args) for part in args.parts}, indent=2))


if __name__ == "__main__":
    main()
