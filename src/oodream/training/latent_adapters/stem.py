"""Latents enter behind the network's first layer, through an adapter that learns to make of a latent what it makes of an image.

The adapter stands for the VAE's decoder and the first layer together. It is taught on pairs of ID images and their latents, so the
classifier behind it sees ID and OOD in one space, nearly all of its layers learn from outliers, and none was ever decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Latents, Output
from ...models.resnet import ResNet
from . import apart


@register("latent_adapters", "stem")
class Stem(nn.Module):
    """Three convolutions from latents (B, F, h, w) to the maps behind the first layer of `model`, resized to theirs.

    ValueError for a network that cannot be entered there; `projector` is for any.
    """

    def __init__(self, model: ResNet, latent: tuple[int, int, int], size: int, width: int = 64) -> None:
        super().__init__()
        if not isinstance(model, ResNet):
            raise ValueError(
                f"The path stem needs a built-in network, not {type(model).__name__}. Use the path projector."
            )
        with torch.no_grad():
            was = model.training
            channels, *side = model.eval().first_map(torch.zeros(1, 3, size, size)).shape[1:]
            model.train(was)
        self.side = tuple(side)
        self.before = nn.Sequential(
            nn.Conv2d(latent[0], width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.after = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, model: ResNet, images_B3HW: Tensor, told: Latents) -> tuple[Output, Tensor]:
        """Outputs for the images, then for the latents; and how far the maps of known latents are from their images'."""
        maps = F.interpolate(self.before(told.latent_LFHW), self.side, mode="bilinear", align_corners=False)
        maps = self.after(maps)  # no ReLU, though the first layer has one: here it could die
        was = model.training
        with torch.no_grad():
            target = model.eval().first_map(
                told.pair_K3HW
            )  # what the pairs look like must not move its statistics
        model.train(was)
        return model.from_map(torch.cat([model.first_map(images_B3HW), maps.detach()])), apart(maps, target)
