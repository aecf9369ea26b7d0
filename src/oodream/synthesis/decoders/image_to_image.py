"""Known images, noised and denoised towards another thing: image-to-image by Stable Diffusion."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ..errors import DecoderError
from ._autoencoding import finite
from ._stepwise import FromKnown
from .stable import noise

__all__ = ["ImageToImageDecoder"]


@register("decoders", "image_to_image")
class ImageToImageDecoder(FromKnown):
    """Begins at a known image of the class, noises it, and denoises it towards the vector's thing (SDEdit,
    Meng et al. 2022, arXiv 2108.01073, algorithm 1).

    Framing, colours and ground stay the known image's, so that little but what is shown tells it from known
    images. `strength` is the share of the steps that are taken, the last ones: 1 begins at noise alone, and
    near 0 the known image is left as it is.

    An image's class and seed say which known image it begins at.
    """

    def __init__(
        self,
        source: str = "embedded",
        *,
        strength: Annotated[float, Range(0, 1, "low")] = 0.6,
        **drawing: Any,
    ) -> None:
        if not 0 < strength <= 1:
            raise DecoderError(f"strength is above 0 and at most 1, not {strength!r}.")
        super().__init__(source, **drawing)
        self.strength = strength
        self._own_options = ("image to image", self.strength)

    @torch.no_grad()
    def _imagine(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor, rows: Tensor) -> Tensor:
        scheduler, options = self.scheduler, self._step_options(seed_B, 0)
        prompts = self._uncond.expand(len(y_B)), self.text.splice(z_BD, y_B)
        times = self._timesteps()[self.steps - max(1, round(self.strength * self.steps)) :]
        known = self._begun(y_B, seed_B, rows)
        latents = scheduler.add_noise(known, noise(seed_B, known).to(known), times[:1].expand(len(known)))
        with self._engine.running():
            for i, time in enumerate(times):
                predicted = self._guided(latents, time, *prompts)
                latents = scheduler.step(predicted, time, latents, **options).prev_sample
                self._stepped(i + 1, len(times))
        return finite(latents, "U-Net", rows)
