"""The autoencoder, and the latents of all images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...config import FitDecoderConfig
from ...core.seeding import seeded
from ...core.tensors import kept_tensors, save_tensors
from ...data.images import Images
from .optimise import Fitting, batch_rows

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

__all__ = ["Posteriors", "encode_all", "fit_vae"]


def fit_vae(
    images: Images, weights: Tensor, config: FitDecoderConfig, work: Path, device: torch.device
) -> tuple[AutoencoderKL, float]:
    """An AutoencoderKL (f = 4 with three widths) with the moving average of its weights, and its last loss.

    The loss: absolute and squared error, absolute error of the pixel differences and of the colour
    differences (a gray image stays gray), and a little KL.
    """
    from diffusers import AutoencoderKL

    levels = len(config.vae_channels)
    with seeded(config.seed, "fit-decoder", "vae"):
        vae = AutoencoderKL(
            block_out_channels=config.vae_channels, layers_per_block=1,
            latent_channels=config.latent_channels,
            norm_num_groups=math.gcd(8, *config.vae_channels),
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            sample_size=config.resolution,
        )  # fmt: skip
    vae.to(device, memory_format=torch.channels_last)
    ema = min(config.ema, 0.999)
    fitting = Fitting(vae, work / "vae.state", config.vae_steps, config.vae_lr, ema, config.save_every)
    for step in fitting.remaining("autoencoder"):
        rows, g = batch_rows(weights, config.vae_batch, config.seed, "vae", step)
        x = to_signed(images.batch(rows).to(device))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=g).to(device)
            y = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = y - x
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        colours = error.diff(dim=1).abs().mean()
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        fitting.update(error.abs().mean() + error.square().mean() + 0.5 * (edges + colours) + 1e-4 * kl)
    fitting.finish()
    return vae.eval().requires_grad_(False), fitting.loss


@dataclass(frozen=True)
class Posteriors:
    """The VAE's posterior of every image: mean and standard deviation, float16 (N, F, h, w)."""

    mean: Tensor
    std: Tensor

    def sample_std(self, weights: Tensor) -> float:
        """The standard deviation of sampled latents under the images' weights: SD's scaling factor is its
        inverse.
        """
        w = (weights / weights.sum())[:, None, None, None] / self.mean[0].numel()
        first, second = (w * self.mean).sum(), (w * (self.mean.float() ** 2 + self.std.float() ** 2)).sum()
        return (second - first**2).sqrt().item()


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: Images, device: torch.device, file: Path) -> Posteriors:
    """The posteriors of all images, in order; kept in `file` for the next call."""
    if not (parts := kept_tensors(file)):
        posteriors = [vae.encode(to_signed(batch).to(device)).latent_dist for batch, _ in images.batches(256)]
        parts = {
            name: torch.cat([getattr(p, name).half().cpu() for p in posteriors]) for name in ("mean", "std")
        }
        save_tensors(file, parts)
    return Posteriors(**parts)


def to_signed(images: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1], the VAE's range."""
    return images.float() / 127.5 - 1
