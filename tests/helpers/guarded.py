"""A small classifier of four kinds of clothes, trained once for all tests that guard or export one."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import Images
from oodream.deploy.guard import Guard
from oodream.detection.detectors import Detector
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from oodream.models.serialized import cut_head

SIZE = 12


@functools.cache
def clothes() -> tuple[Images, Images]:
    """6,000 training and 1,000 test images."""
    train, test = (fashion(split, FASHION_ID[:4], size=SIZE) for split in ("train", "test"))
    return train, test


@functools.cache
def classifier() -> Classifier:
    """A resnet8 after one pass over the training images, with a loss that has weights of its own."""
    train, _ = clothes()
    with seeded(0, "guarded"):
        network, loss = backbone("resnet8", len(train.classes)), make("losses", "energy_logistic")
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        for rows in torch.randperm(len(train)).split(128):
            optimizer.zero_grad()
            logits_BC = network.train()(train.batch(rows)).logits_BC
            nn.functional.cross_entropy(logits_BC, train.labels[rows]).backward()
            optimizer.step()
    settings = {"backbone": "resnet8", "loss": "energy_logistic", "loss_options": {"beta": 1.0}}
    return Classifier(
        network=network.eval(), loss=loss, names=train.classes, size=SIZE, threshold=0.0, settings=settings
    )


@functools.cache
def _room() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@functools.cache
def _extractor() -> Extractor:
    """The classifier's, which keeps its outputs, so that the images go through the network once."""
    return classifier().extractor(cache=Path(_room().name))


def calibrated(detector: str | Detector, **options: Any) -> Guard:
    """A new guard of the classifier and all images."""
    return Guard.calibrate(classifier(), detector, *clothes(), extractor=_extractor(), **options)


@functools.cache
def guard(detector: str = "energy", **options: Any) -> Guard:
    """The one guard with these options."""
    return calibrated(detector, **options)


def save_run(folder: Path) -> Path:
    """What a run's folder holds of a classifier and its guard."""
    classifier().save(folder / "classifier" / "regularized-s0")
    guard().save(folder / "guard", "classifier/regularized-s0")
    return folder


class Logits(nn.Module):
    """The classifier's network as other programs have it: on pixels in [0, 1], with its outputs in an order
    of their own.
    """

    order = (2, 0, 3, 1)

    def __init__(self) -> None:
        super().__init__()
        self.network = copy.deepcopy(classifier().network)
        self.network.head = cut_head(self.network.head, torch.tensor(self.order))

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.network(pixels_B3HW * 255).logits_BC


def output_names() -> list[str]:
    """What the outputs of `Logits` mean."""
    return [classifier().names[i] for i in Logits.order]


def save_logits(file: Path) -> Path:
    """`Logits` as a program for batches of any size."""
    x = torch.rand(2, 3, SIZE, SIZE)
    program = torch.export.export(Logits().eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, file)
    return file


def encoded(n: int, damaged: Collection[int] = ()) -> list[bytes]:
    """The first test images as image files; those in the places `damaged` are none."""
    files = []
    for row, pixels in enumerate(clothes()[1].batch(range(n))):
        buffer = BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "png")
        files.append(b"no picture" if row in damaged else buffer.getvalue())
    return files


def save_clothes(folder: Path, n: int, classes: int = 4) -> Path:
    """Some of the test images in class folders, twice as large."""
    _, test = clothes()
    rows = (test.labels < classes).nonzero().flatten()[:n]
    for row, image in zip(rows.tolist(), test.batch(rows), strict=True):
        place = folder / test.classes[test.labels[row]]
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture.resize((2 * SIZE, 2 * SIZE), Image.Resampling.NEAREST).save(place / f"{row:04}.png")
    return folder
