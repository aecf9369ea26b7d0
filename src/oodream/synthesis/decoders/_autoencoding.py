"""Between images and latents: a decoder's autoencoder, tile by tile. No denoising."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import NotFiniteError
from ._engines import Engine
from ._tiles import Tiled

__all__ = ["Autoencoding", "finite", "resized", "to_uint8"]


class Autoencoding(Tiled):
    """A decoder whose pipeline has an autoencoder, which its engine runs; images leave it `size` pixels
    wide.
    """

    pipeline: Any
    size: int
    _engine: Engine

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """The latents (B, F, h, w), float16, of images (uint8): the mean of the VAE's encoder, at the scale
        of `latents`.
        """

        def encode(rows: Tensor) -> Tensor:
            latents = self._encoded(images_B3HW[rows], rows) * self.pipeline.vae.config.scaling_factor
            return finite(latents.half(), "VAE", rows)

        return self.tiled(len(images_B3HW), encode, self._no_latents)

    def pictures(self, latents_BFHW: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 of latents, for people to look at."""

        return self.tiled(
            len(latents_BFHW), lambda rows: self._picture(latents_BFHW[rows], rows), self._no_images
        )

    def reconstruct(self, images_B3HW: Tensor) -> Tensor:
        """The images after the VAE's encoder (its mean) and decoder, uint8: what decoding alone does to a
        picture.
        """

        def there_and_back(rows: Tensor) -> Tensor:
            return self._decoded(self._encoded(images_B3HW[rows], rows), rows)

        return self.tiled(len(images_B3HW), there_and_back, self._no_images)

    @property
    def _no_images(self) -> Tensor:
        return torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)

    @property
    def _no_latents(self) -> Tensor:
        channels, size = (
            self.pipeline.unet.config.in_channels,
            self.resolution // self.pipeline.vae_scale_factor,
        )
        return torch.empty(0, channels, size, size, dtype=torch.float16)

    def _picture(self, latents_BFHW: Tensor, rows: Tensor) -> Tensor:
        vae = self.pipeline.vae
        return self._decoded(latents_BFHW.to(self.device, vae.dtype) / vae.config.scaling_factor, rows)

    @torch.no_grad()
    def _encoded(self, images_B3HW: Tensor, rows: Tensor) -> Tensor:
        vae = self.pipeline.vae
        x = resized(images_B3HW.float() / 127.5 - 1, self.resolution).to(self.device, vae.dtype)
        mean = self._engine.encode(x)
        return finite(mean.to(vae.dtype), "VAE", rows)

    @torch.no_grad()
    def _decoded(self, latents_BFHW: Tensor, rows: Tensor) -> Tensor:
        sample = self._engine.decode(latents_BFHW)
        return to_uint8(finite(sample, "VAE", rows), self.size)


def finite(x: Tensor, part: str, rows: Tensor) -> Tensor:
    """x (B, …) itself; NotFiniteError names the first of its `rows` (B,) that holds NaN or infinity."""
    wrong_B = ~x.isfinite().flatten(1).all(1).cpu()
    if wrong_B.any():
        raise NotFiniteError(int(rows[wrong_B][0]), part, x.dtype)
    return x


def to_uint8(x: Tensor, size: int) -> Tensor:
    """[-1, 1] as uint8 at `size` pixels, rounded."""
    return ((resized(x.float(), size).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def resized(x: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) at `size` pixels: bicubic, antialiased; as they are where they have that size."""
    return x if x.shape[-1] == size else interpolate(x, (size, size), mode="bicubic", antialias=True)
