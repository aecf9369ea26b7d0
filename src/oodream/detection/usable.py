"""Which detectors a network can serve and which can be fitted; why the others are skipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..core.types import Detector, Output
from ..data.images import Images
from ..models.inference import Extractor, outputs
from .detectors import probes_of
from .fit import Training

__all__ = ["CANNOT_BE_USED", "check_known", "fitted", "none_left", "served"]

# What a detector raises that does not suit, or has a fault.
CANNOT_BE_USED = (ValueError, RuntimeError, TypeError, IndexError)


def served(
    extractor: Extractor, detectors: Mapping[str, Detector], test: Images, skipped: Mapping[str, str]
) -> tuple[dict[str, Detector], dict[str, str]]:
    """The detectors whose probes the network can give, as two images show; and why the others are skipped."""
    usable: dict[str, Detector] = {}
    skipped = dict(skipped)
    two = test.subset(torch.arange(min(2, len(test))))
    for name, detector in detectors.items():
        try:
            if probes := probes_of([detector]):
                outputs(extractor.network, two, extractor.device, probes=probes)
            usable[name] = detector
        except CANNOT_BE_USED as error:
            skipped[name] = str(error)
    if not usable:
        raise ValueError(none_left(skipped))
    return usable, skipped


def fitted(
    training: Training, detectors: Mapping[str, Detector], skipped: Mapping[str, str]
) -> tuple[dict[str, Detector], dict[str, str]]:
    """The detectors, fitted, and the reasons why those are skipped that cannot be; ValueError for labels that
    are not the network's.
    """
    check_known("training", training.known, training.y_N)
    usable, failed = {}, {}
    for name, detector in detectors.items():
        try:
            usable[name] = training.fit(detector)
        except CANNOT_BE_USED as error:
            failed[name] = str(error)
    return usable, {**skipped, **failed}


def check_known(name: str, output: Output, y_N: Tensor) -> None:
    """Raises ValueError for a set without images, and for labels that are not the network's."""
    classes = output.logits_BC.shape[1]
    if not len(output):
        raise ValueError(f"The ID {name} set is empty.")
    if len(y_N) != len(output) or not 0 <= int(y_N.min()) <= int(y_N.max()) < classes:
        raise ValueError(
            f"The network has outputs for {classes} classes and {len(output)} ID {name} images, and "
            f"there are {len(y_N)} labels from {int(y_N.min())} to {int(y_N.max())}: is this the "
            "network's own list of classes?"
        )


def none_left(skipped: Mapping[str, str]) -> str:
    """Why no detector is left, for people."""
    if not skipped:
        return "At least one detector is needed."
    return "None of the detectors can be used:\n" + "\n".join(
        f"  {name}: {why}" for name, why in skipped.items()
    )
