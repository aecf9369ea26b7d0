"""What tells one guard or classifier from another, wherever it lies."""

from __future__ import annotations

import json
from typing import Any

import torch

from ..core.types import Json
from ..detection.detectors import state
from ..models.classifier import Classifier
from ..models.inference import weights_hash
from .guard import Guard
from .stored import name_of, options_of

__all__ = ["identity"]


def identity(predictor: Guard | Classifier) -> Json:
    """All that answers depend on, beside the pictures: a hash `guard` of networks, detector and held-out
    scores, the guaranteed `alpha` (None without a guarantee), and the `threshold`.
    """
    classifier = predictor.classifier if isinstance(predictor, Guard) else predictor
    tensors = {f"network.{name}": tensor for name, tensor in classifier.network.state_dict().items()}
    tensors |= {f"loss.{name}": tensor for name, tensor in classifier.loss.state_dict().items()}
    facts: list[Any] = [classifier.described()]
    if isinstance(predictor, Guard):
        detector = predictor.detector
        held_out = predictor.held_out.arrays()
        tensors |= {f"held_out.{name}": torch.from_numpy(array) for name, array in held_out.items()}
        tensors |= {f"detector.{name}": tensor for name, tensor in state(detector).items()}
        facts += [
            name_of(detector),
            options_of(detector),
            predictor.guarantee.confidence,
            predictor.per_class,
        ]
    return {
        "guard": weights_hash(tensors, json.dumps(facts)),
        "alpha": predictor.guarantee.alpha if isinstance(predictor, Guard) else None,
        "threshold": predictor.threshold,
    }
