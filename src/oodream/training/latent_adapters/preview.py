"""Latents reach the classifier as previews, which a light decoder draws.

The decoder has learned from known images and their latents. The classifier sees known and unknown through the
same few convolutions, all its layers learn from outliers, and no VAE decodes anything.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.progress import progress
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import LatentAdapter, LatentPairs, Latents, Output

__all__ = ["Preview"]

BATCH = 64
LR = 2e-3


@register("latent_adapters", "preview")
class Preview(LatentAdapter):
    """Convolutions from latents (B, F, h, w) to images of the classifier's size; for any classifier.

    They learn by least squares, `steps` steps, from known images and their latents and from recolored ones
    and theirs. Then they stay: if the classifier's losses reached them, both would agree on a mark for
    outliers, and nothing would be learned about images. This adapter is the default because, under one
    budget, it accepts a thirteenth of what the published way does, by auxiliary networks alone.
    """

    pretrained = True

    def __init__(
        self, model: nn.Module, latent: tuple[int, int, int], size: int, width: int = 64, steps: int = 2400
    ) -> None:
        super().__init__()
        self.size, self.steps = size, steps
        layers, side = [nn.Conv2d(latent[0], width, 3, padding=1), nn.ReLU()], latent[1]
        while side < size:
            narrower = max(16, width // 2)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, narrower, 3, padding=1), nn.ReLU()]
            width, side = narrower, 2 * side
        network = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))
        # On a processor it draws twice as fast so.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fit(self, pairs: LatentPairs, seed: int, device: torch.device) -> None:
        """Least squares on pairs drawn by `seed`, in values from -1 to 1."""
        self.to(device)
        optimizer = torch.optim.Adam(self.parameters(), LR)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=self.steps)
        g = generator(seed, "preview")
        for _ in progress(range(self.steps), total=self.steps, what="train latent adapter", unit="step"):
            images, latents = (x.to(device).float() for x in pairs.draw(BATCH, g))
            loss = F.mse_loss(self._drawn(latents), images / 127.5 - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def forward(self, model: nn.Module, images_B3HW: Tensor, latents: Latents) -> tuple[Output, None]:
        """Outputs for the images, then for the latents' previews."""
        previews = latents.augment(self.draw(latents.latent_LFHW))
        return model(torch.cat([images_B3HW, previews])), None

    @torch.no_grad()
    def draw(self, latent_BFHW: Tensor) -> Tensor:
        """Previews (B, 3, H, W), uint8."""
        return ((self._drawn(latent_BFHW).float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def _drawn(self, latent_BFHW: Tensor) -> Tensor:
        drawn: Tensor = self.network(latent_BFHW)
        if drawn.shape[-1] == self.size:
            return drawn
        return F.interpolate(drawn, (self.size, self.size), mode="bilinear", antialias=True)
