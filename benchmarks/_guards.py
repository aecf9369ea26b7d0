"""Guards around random weights, of which only the speed matters, for the benchmarks of what is deployed."""

from __future__ import annotations

import warnings

import torch

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.builtin import FASHION_ID, fashion
from oodream.deploy.guard import Guard
from oodream.deploy.quantize import Int8Images
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone

__all__ = ["SIZE", "new_guard"]

SIZE = 32  # pixels
N_TRAIN, N_HELD_OUT = 600, 1000


def new_guard(name: str) -> tuple[Guard, Int8Images]:
    """A guard around a built-in network at 32 pixels, energy score, and what it is quantised on."""
    train, test = (fashion(split, FASHION_ID, size=SIZE) for split in ("train", "test"))
    train, test = train.subset(torch.arange(N_TRAIN)), test.subset(torch.arange(N_HELD_OUT))
    with seeded(0, "benchmark"):
        network = backbone(name, len(train.classes)).eval()
    classifier = Classifier(
        network=network, loss=make("losses", "cross_entropy"), names=train.classes, size=SIZE, threshold=0.0,
        settings={"backbone": name, "loss": "cross_entropy", "loss_options": {}},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights rank at random
        return Guard.calibrate(classifier, "energy", train, test), Int8Images(train=train, held_out=test)
