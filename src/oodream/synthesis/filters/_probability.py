"""What the built-in filters look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...models.inference import network_device

__all__ = ["class_probability", "probabilities"]


@torch.no_grad()
def probabilities(classifier: nn.Module, images_B3HW: Tensor) -> Tensor:
    """The softmax probabilities (B, C), on the CPU, that the classifier gives each image."""
    classifier.eval()
    p_BC: Tensor = classifier(images_B3HW.to(network_device(classifier))).logits_BC.softmax(1).cpu()
    return p_BC


def class_probability(classifier: nn.Module, images_B3HW: Tensor, y_B: Tensor) -> Tensor:
    """The softmax probability (B,), on the CPU, that the classifier gives each image's class `y_B`."""
    return probabilities(classifier, images_B3HW).gather(1, y_B[:, None])[:, 0]
