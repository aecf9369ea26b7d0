"""Outliers that a network makes of known images.

What it takes for their class is overdone until it is another thing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["PERTURBATIONS", "Perturbation", "attributed"]

SHARE = 0.1  # of the values of an image
STEP = 10 * 64.0**2  # in levels of 255; ten in the units of inputs whose standard deviation is 64 levels

Perturbation = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of the network as it is, known images (uint8) and their classes: outliers, uint8 (B, 3, H, W)."""


def attributed(model: nn.Module, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
    """The images plus `STEP` times the gradient of their class's logit, where it is strongest: at a tenth of
    the values.

    So ASCOOD (Regmi 2026, as OpenOOD's code has it) takes away what makes an image one of its class, and
    leaves the rest. The network is asked in its evaluation mode, and nothing of it changes. There the images
    are normalised floats; here they are rounded to pixels and cut off at black and white.
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
    return (images_B3HW + STEP * kept).clamp(0, 255).round().to(torch.uint8)


PERTURBATIONS: dict[str, Perturbation] = {"attributed": attributed}
"""By the names of `regularize.known_transform`, beside those of `known.TRANSFORMS`."""
