"""Measures the embedded decoder and writes its grids of pictures; the model card quotes what this prints.

    python world/measure.py --grid src/oodream/assets/decoder/world.png     # about ten minutes on 2 cores

As asked: of the images of a plain class prompt, which share does a classifier of all real training images
take for that class? Copied: how far is a generated image from its nearest training image, and how far is a
real test image?
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from oodream.config import Optimisation, TrainConfig
from oodream.data.builtin import FASHION_ID, fashion
from oodream.models.inference import Extractor
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.training.sources import Source
from oodream.training.train import make_loss, train

WORLD = (
    "dog face|cat face|panda|penguin|fish|butterfly|elephant|bird|red apple|banana|pizza|"
    "ice cream|birthday cake|hamburger|racing car|airplane|sailboat|bicycle|house|deciduous tree|"
    "cactus|rose|sun|rainbow|red heart|blue star|green square|yellow circle|purple triangle|"
    "grinning face|crying face|alien|ghost|robot|umbrella|guitar|key|diya lamp|open book|"
    "laptop|soccer ball|balloon|grey dog face|grey racing car|grey guitar|grey teapot|grey hammer|"
    "grey deciduous tree"
).split("|")


def nearest(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Root mean square distance per pixel (0-255) from each image to the nearest of the others."""
    a, b = (x.float().mean(1).flatten(1) for x in (images, others))
    return torch.cat([torch.cdist(part, b).min(1).values for part in a.split(128)]) / a.shape[1] ** 0.5


def summary(distances: torch.Tensor) -> dict[str, float]:
    """The smallest and the middle one."""
    return {"min": round(distances.min().item(), 1), "median": round(distances.median().item(), 1)}


def grid(images: torch.Tensor, captions: list[str], columns: int) -> Image.Image:
    """Pictures with captions below, at three times their size."""
    side, line = 96, 14
    canvas = Image.new("RGB", (columns * side, -(-len(images) // columns) * (side + line)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * side, i // columns * (side + line)
        canvas.paste(
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.NEAREST),
            (x, y),
        )
        pen.text((x + 3, y + side + 1), caption[:15], fill="black")
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoder", default="embedded")
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--grid", type=Path, required=True)
    args = parser.parse_args()
    decoder = StableDecoder(args.decoder, names=FASHION_ID)

    Path(args.grid).parent.mkdir(parents=True, exist_ok=True)
    of_world = decoder.plain([f"a picture of a {caption}" for caption in WORLD], torch.arange(len(WORLD)))
    grid(of_world, WORLD, 12).save(args.grid)
    y = torch.arange(len(FASHION_ID)).repeat_interleave(args.per_class)
    generated = decoder.plain([decoder.book.prompts[c] for c in y.tolist()], torch.arange(len(y)))
    first = torch.cat([torch.arange(12) + c * args.per_class for c in range(len(FASHION_ID))])
    grid(generated[first], [FASHION_ID[c] for c in y[first].tolist()], 12).save(
        args.grid.with_name("garments.png")
    )

    real, test = (fashion(split, FASHION_ID, full=True) for split in ("train", "test"))
    config = TrainConfig(optimisation=Optimisation(epochs=args.epochs))
    with tempfile.TemporaryDirectory() as scratch:
        network = train(
            [Source(role="known", data=real)],
            config,
            0,
            torch.device("cpu"),
            Path(scratch) / "state",
            "judge",
            loss=make_loss(("cross_entropy",)),
        ).network.eval()
    with torch.no_grad():
        hits = network(generated).logits_BC.argmax(1) == y
    test_hits = Extractor(network)(test).logits_BC.argmax(1) == test.labels
    copied, unseen = (
        nearest(images, real.batch(range(len(real))))
        for images in (generated, test.batch(torch.randperm(len(test))[: len(generated)]))
    )
    by_class = {name: round(hits[y == c].float().mean().item(), 3) for c, name in enumerate(FASHION_ID)}
    results = {
        "as_asked": round(hits.float().mean().item(), 4),
        "as_asked_by_class": by_class,
        "accuracy_on_real_test_images": round(test_hits.float().mean().item(), 4),
        "generated": len(generated),
        "nearest_training_image_of_generated": summary(copied),
        "nearest_training_image_of_real_test": summary(unseen),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
