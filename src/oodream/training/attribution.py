"""Outliers that a network makes of known images.

What it takes for their class is overdone until it is another thing.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["PERTURBATIONS", "Perturbation", "attributed"]

SHARE = 0.1  # of the values of an image
SCALE = 64.0  # levels of 255 in a unit of normalised pixels, which the published step is for


class Perturbation(Protocol):
    """Makes outliers, float32 (B, 3, H, W), of known images and their classes with the network as it is."""

    def __call__(self, model: nn.Module, images_B3HW: Tensor, y_B: Tensor, step: float) -> Tensor: ...


def attributed(model: nn.Module, images_B3HW: Tensor, y_B: Tensor, step: float) -> Tensor:
    """The images plus `step` times the gradient of their class's logit, where that is strongest.

    The tenth of an image's values with the largest gradients change, and the others stay. So ASCOOD (Regmi
    2026, as in OpenOOD's code) takes away what makes an image one of its class. Images are uint8, or floats
    in levels of 255, as the result is: it is neither rounded nor cut off at black and white, as there. The
    step is in units of 64 levels, for the gradient as for the image; 10 is OpenOOD's. The network is asked in
    its evaluation mode, and nothing of it changes.
    """
    training = model.training
    model.eval()
    with torch.enable_grad():
        images = images_B3HW.float().requires_grad_()
        logit_B = model(images).logits_BC.float().gather(1, y_B[:, None])
        (gradient,) = torch.autograd.grad(logit_B.sum(), images)
    model.train(training)
    flat = gradient.flatten(1)
    strongest = flat.abs().topk(max(1, int(SHARE * flat.shape[1])), dim=1).indices
    kept = torch.zeros_like(flat).scatter(1, strongest, flat.gather(1, strongest)).view_as(gradient)
    return images_B3HW + step * SCALE**2 * kept


PERTURBATIONS: dict[str, Perturbation] = {"attributed": attributed}
"""By the names of `regularize.known_transform`, beside those of `known.TRANSFORMS`."""
