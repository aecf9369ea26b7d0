"""The verb `train`: a classifier, plain or regularised with imagined outliers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .config import Train
from .loop import Mixture, fit
from .registry import make
from .seeding import seeded
from .types import Loss
from .vision import SCRATCH, backbone, load_weights


def train(
    data: Mixture, config: Train, seed: int, device: torch.device, state: Path, what: str
) -> tuple[nn.Module, Loss, list[dict[str, float]]]:
    """Trains a classifier on the mixture; returns it with its loss (which holds phi) and its log.

    The seed fixes its weights and every batch. ValueError when the weights it is to begin with cannot be read or do not fit.
    """
    with seeded(seed, "train"):
        model = backbone(config.backbone, len(data.id.classes), pretrained=not config.init)
        if config.init and config.init != SCRATCH:
            load_weights(model, Path(config.init), new_head=True)
        loss = make("losses", config.loss, **config.loss_options)
    log = fit(model, loss, data, config.optimisation, seed, device, state, what)
    return model, loss, log
