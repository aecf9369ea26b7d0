"""A small classifier of four kinds of clothes, trained once for all tests that guard or export one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch

from oodream.config import Optimisation
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import Images
from oodream.deploy.guard import Guard
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone
from oodream.training.loop import fit
from oodream.training.sources import Source

SIZE = 12


@functools.cache
def clothes() -> tuple[Images, Images]:
    """6,000 training and 1,000 test images."""
    train, test = (fashion(split, FASHION_ID[:4], size=SIZE) for split in ("train", "test"))
    return train, test


@functools.cache
def classifier() -> Classifier:
    train, _ = clothes()
    with seeded(0, "guarded"), tempfile.TemporaryDirectory() as folder:
        network, loss = backbone("resnet8", len(train.classes)), make("losses", "energy_logistic")
        data, budget = [Source(role="known", data=train)], Optimisation(epochs=1, batch=128, crop_padding=0)
        fit(
            network,
            make("losses", "cross_entropy"),
            data,
            budget,
            0,
            torch.device("cpu"),
            Path(folder) / "state",
            "t",
        )
    told = {"backbone": "resnet8", "loss": "energy_logistic", "loss_options": {"beta": 1.0}}
    return Classifier(
        network=network.eval(), loss=loss, names=train.classes, size=SIZE, threshold=0.0, told=told
    )


@functools.cache
def guard(detector: str = "energy", alpha: float = 0.05) -> Guard:
    return Guard.calibrate(classifier(), detector, *clothes(), alpha=alpha)


def save_run(folder: Path) -> Path:
    """What a run's folder holds of a classifier and its guard."""
    classifier().save(folder / "classifier" / "dream-s0")
    guard().save(folder / "guard", "classifier/dream-s0")
    return folder
