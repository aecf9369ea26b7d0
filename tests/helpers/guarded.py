"""A small classifier of four kinds of clothes, trained once for all tests that guard or export one."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import nn

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import Images
from oodream.deploy.guard import Guard
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone

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
def guard(detector: str = "energy", alpha: float = 0.05) -> Guard:
    return Guard.calibrate(classifier(), detector, *clothes(), alpha=alpha)


def save_run(folder: Path) -> Path:
    """What a run's folder holds of a classifier and its guard."""
    classifier().save(folder / "classifier" / "regularized-s0")
    guard().save(folder / "guard", "classifier/regularized-s0")
    return folder
