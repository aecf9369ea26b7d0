"""Latents reach the penultimate features through a projector of their own: for any network, and the cheapest way.

Of the classifier only its last layer ever sees an outlier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.registry import register
from ...core.types import Latents, Output
from . import apart


@register("latent_adapters", "projector")
class Projector(nn.Module):
    """Strided convolutions from latents (B, F, h, w) to features (B, width of `model.head`), which `model.head` then classifies."""

    def __init__(self, model: nn.Module, latent: tuple[int, int, int], size: int, width: int = 64) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(latent[0], width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(2 * width, model.head.in_features),  # type: ignore[arg-type,union-attr]
        )  # fmt: skip

    def forward(self, model: nn.Module, images_B3HW: Tensor, told: Latents) -> tuple[Output, Tensor]:
        """Outputs for the images, then for the latents; and how far the features of known latents are from their images'."""
        seen, made = model(images_B3HW), self.network(told.latent_LFHW)
        z = made.detach()
        with torch.no_grad():
            was = model.training
            target = model.eval()(told.pair_K3HW).z_BF
            model.train(was)
        off = apart(made, target)
        return Output(
            logits_BC=torch.cat([seen.logits_BC, model.head(z)]), z_BF=torch.cat([seen.z_BF, z])
        ), off  # type: ignore[operator]
