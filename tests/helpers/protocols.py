"""Small protocols on disk, whose images are noise around a colour, and what `oodream evaluate` leaves of
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from oodream.cli.main import COMMANDS, main
from oodream.core.registry import make
from oodream.core.results import Row, row_from_json
from oodream.data.images import Images, ImageSet
from oodream.models.classifier import Classifier

CLASSES = ("red", "green", "blue")
SIZE = 16
PLACES = {"train": 24, "test": 18, "near": 10, "far": 12}
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (120, 120, 120), (220, 220, 30)]
FOLDERS = """
size = 8
[[sets]]
name = "train"
group = "train"
folders = ["none", "photos/train"]
[[sets]]
name = "test"
group = "test"
folders = ["photos/test"]
count = 6
[[sets]]
name = "street"
group = "far"
folders = ["street"]
"""


class ByColour(nn.Module):
    """Three logits by the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean((2, 3)))


def picture(kind: int, i: int) -> Image.Image:
    """Noise around one of three colours, or (3) around gray and (4) yellow; the same for the same numbers."""
    noise = np.random.default_rng((kind, i)).normal(0, 12, (SIZE, SIZE, 3))
    return Image.fromarray((np.array(COLOURS[kind]) + noise).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def write_list(file: Path, lines: Sequence[str], end: str = "\n", start: bytes = b"") -> str:
    """Writes an image list. Returns its hash as `sha256sum` has it for Unix line ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(start + "".join(line + end for line in lines).encode())
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def edit(root: Path, old: str, new: str) -> None:
    """Replaces a text in the protocol file of the fixture `root`."""
    text = (root / "colours.toml").read_text()
    assert old in text
    (root / "colours.toml").write_text(text.replace(old, new))


def pixels(root: Path, place: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The images (N, 3, S, S) of a set of the fixture `root` and their colours (N,), read without the
    package.
    """
    files = sorted((root / "images_classic" / "colours" / place).glob("*.png"))
    kinds = [int(file.name.split()[0]) % 3 for file in files]
    images = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    return torch.stack(images), torch.tensor(kinds)


def images_of(sets: Sequence[ImageSet]) -> dict[str, Images]:
    """The images of every set by name."""
    return {s.name: s.images for s in sets}


def evaluate(root: Path, *more: str) -> int:
    """`oodream evaluate` on the protocol of the fixture `root`."""
    return main(
        ["evaluate", "--protocol", str(root / "colours.toml"), "--device", "cpu", "--resamples", "20", *more]
    )


def run_command(args: Sequence[str]) -> None:
    """A command without `main`, which catches errors and prints warnings."""
    assert COMMANDS[args[0]].run(args[1:]) == 0


def rows(out: Path, name: str = "results") -> dict[tuple[str, str, str], Row]:
    """The rows of a results folder by detector, set and group."""
    found = [row_from_json(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
    return {(row.detector, row.dataset, row.group): row for row in found}


def save_classifier(folder: Path, network: nn.Module, names: tuple[str, ...] = CLASSES) -> Path:
    """A classifier's folder around a network of the architecture resnet8."""
    settings = {"backbone": "resnet8", "loss": "cross_entropy", "loss_options": {}}
    Classifier(
        network=network,
        loss=make("losses", "cross_entropy"),
        names=names,
        size=SIZE,
        threshold=0.0,
        settings=settings,
    ).save(folder)
    return folder
