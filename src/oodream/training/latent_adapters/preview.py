"""Latents reach the classifier as previews, which a light decoder draws that has learned from known images and their latents.

The classifier sees ID and OOD through the same few convolutions, all its layers learn from outliers, and no VAE decodes anything.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.progress import progress
from ...core.registry import register
from ...core.seeding import generator
from ...core.types import Latents, Output
from ..batches import Mixture


@register("latent_adapters", "preview")
class Preview(nn.Module):
    """Convolutions from latents (B, F, h, w) to images as wide as the classifier's, doubling their side on the way; any classifier.

    They learn before the classifier does, from known images and their latents and from known images in random colours and theirs
    (outliers have colours that known images lack), and then stay: who trains a classifier freezes them. If the classifier's losses
    reached them, both would agree on a mark for outliers, and nothing would be learned about images. It is the default because,
    under one budget, it accepts a thirteenth of what the published way does, by auxiliary networks alone (README, "OAL").
    """

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
        self.network = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))

    def learn(self, data: Mixture, seed: int, device: torch.device, batch: int = 64) -> None:
        """Least squares on pairs drawn by `seed`."""
        assert data.bank is not None
        self.to(device)
        optimizer = torch.optim.Adam(self.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=self.steps)
        g = generator(seed, "preview")
        coloured, of_coloured = data.bank.coloured
        for _ in progress(range(self.steps), total=self.steps, what="learn to preview", unit="step"):
            rows, others = (
                torch.randint(n, (batch // 2,), generator=g) for n in (len(data.id), len(coloured))
            )
            images = torch.cat([data.id.batch(rows), coloured[others]]).to(device).float() / 127.5 - 1
            latents = torch.cat([data.bank.known(rows), of_coloured[others]]).to(device).float()
            loss = F.mse_loss(self._drawn(latents), images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def forward(self, model: nn.Module, images_B3HW: Tensor, told: Latents) -> tuple[Output, None]:
        """Outputs for the images, then for the latents."""
        return model(torch.cat([images_B3HW, told.shown(self.draw(told.latent_LFHW))])), None

    @torch.no_grad()
    def draw(self, latent_BFHW: Tensor) -> Tensor:
        """Previews (B, 3, H, W), uint8."""
        return ((self._drawn(latent_BFHW).float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def _drawn(self, latent_BFHW: Tensor) -> Tensor:
        drawn = self.network(latent_BFHW)
        return (
            drawn
            if drawn.shape[-1] == self.size
            else F.interpolate(drawn, (self.size, self.size), mode="bilinear", antialias=True)
        )
