"""Latents enter the network behind its first layer.

The adapter stands for the VAE's decoder and the first layer together. It learns from pairs of ID images and
their latents. So the classifier behind it sees known and unknown in one space, nearly all of its layers learn
from outliers, and none is ever decoded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import LatentAdapter, Latents, Output
from ...models.resnet import ResNet
from . import unexplained_variance

__all__ = ["Stem"]


@register("latent_adapters", "stem")
class Stem(LatentAdapter):
    """Three convolutions from latents (B, F, h, w) to the maps behind the first layer of `model`.

    Its own loss is the unexplained variance of the known images' maps. Raises ValueError for a network that
    cannot be entered there; `projector` is for any.
    """

    def __init__(self, model: nn.Module, latent: tuple[int, int, int], size: int, width: int = 64) -> None:
        super().__init__()
        if not isinstance(model, ResNet):
            raise ValueError(
                f"The latent adapter stem needs a built-in network, not {type(model).__name__}. "
                "Use the latent adapter projector."
            )
        with torch.no_grad():
            training = model.training
            channels, *side = model.eval().first_map(torch.zeros(1, 3, size, size)).shape[1:]
            model.train(training)
        self.side = tuple(side)
        self.before = nn.Sequential(
            nn.Conv2d(latent[0], width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.after = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, model: nn.Module, images_B3HW: Tensor, latents: Latents) -> tuple[Output, Tensor]:
        """Outputs for the images, then for the latents; and the adapter's own loss."""
        assert isinstance(model, ResNet)
        maps = F.interpolate(
            self.before(latents.latent_LFHW), self.side, mode="bilinear", align_corners=False
        )
        maps = self.after(maps)  # no ReLU, though the first layer has one: here it could die
        with torch.no_grad():
            training = model.training
            target = model.eval().first_map(latents.pair_K3HW)  # pairs must not move the network's statistics
            model.train(training)
        output = model.from_map(torch.cat([model.first_map(images_B3HW), maps.detach()]))
        return output, unexplained_variance(maps, target)
