"""The verb `train`: a classifier, plain or regularised with imagined outliers."""

from __future__ import annotations

from pathlib import Path

import torch

from .config import Train
from .loop import Mixture, fit
from .registry import make
from .seeding import seeded
from .vision import ResNet, backbone


def train(
    data: Mixture, config: Train, seed: int, device: torch.device, state: Path, what: str
) -> tuple[ResNet, list[dict[str, float]]]:
    """Trains a classifier on the mixture and returns it with its log; the seed fixes its weights and every batch."""
    with seeded(seed, "train"):
        model = backbone(config.backbone, len(data.id.classes))
        loss = make("losses", config.loss, **config.loss_options)
    log = fit(model, loss, data, config.optimisation, seed, device, state, what)
    return model, log
