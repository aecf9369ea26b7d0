"""Latents become penultimate features by a projector of their own: for any network, and the cheapest way.

Of the classifier only its last layer ever sees an outlier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.registry import register
from ...core.types import LatentAdapter, Latents, Output
from . import unexplained_variance

__all__ = ["Projector"]


@register("latent_adapters", "projector")
class Projector(LatentAdapter):
    """Strided convolutions from latents (B, F, h, w) to the features that `model.head` classifies.

    Its own loss is the unexplained variance of the known images' features.
    """

    def __init__(self, model: nn.Module, latent: tuple[int, int, int], size: int, width: int = 64) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(latent[0], width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, model.head.in_features),  # type: ignore[arg-type,union-attr]
        )

    def forward(self, model: nn.Module, images_B3HW: Tensor, latents: Latents) -> tuple[Output, Tensor]:
        """Outputs for the images, then for the latents; and the projector's own loss."""
        output, projected = model(images_B3HW), self.network(latents.latent_LFHW)
        with torch.no_grad():
            training = model.training
            target = model.eval()(latents.pair_K3HW).z_BF  # pairs must not move the network's statistics
            model.train(training)
        z = projected.detach()
        logits_BC = torch.cat([output.logits_BC, model.head(z)])  # type: ignore[operator]
        own_loss = unexplained_variance(projected, target)
        return Output(logits_BC=logits_BC, z_BF=torch.cat([output.z_BF, z])), own_loss
