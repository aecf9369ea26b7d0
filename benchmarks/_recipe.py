"""The published recipe of drawing, as its repositories call a Stable Diffusion; and what a picture costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from oodream.core.seeding import generator
from oodream.synthesis.decoders.stable import StableDecoder

__all__ = ["BATCH", "GUIDANCE", "STEPS", "Cost", "cost", "recipe", "vectors"]

STEPS, GUIDANCE, BATCH = 50, 7.5, 4


def vectors(decoder: StableDecoder, names: Sequence[str], n: int) -> tuple[Tensor, Tensor]:
    """n unit vectors at a cosine of about 0.5 to their classes', and the classes."""
    y = torch.arange(n) % len(names)
    t = normalize(decoder.book.tokens_CD[y], dim=1)
    noise = torch.randn(t.shape, generator=torch.Generator().manual_seed(0)) * (3 / t.shape[1]) ** 0.5
    return normalize(t + noise, dim=1), y


def recipe(decoder: StableDecoder, z_BD: Tensor, y_B: Tensor, steps: int = STEPS) -> None:
    """The first vector of every four draws four images; the prompt, and the empty one, are encoded for every
    batch.
    """
    unet = decoder.pipeline.unet.config
    shape = unet.in_channels, unet.sample_size, unet.sample_size
    for start in range(0, len(z_BD), BATCH):
        rows = torch.tensor([start])
        prompt = decoder.text.splice(z_BD[rows], y_B[rows]).expand(BATCH)
        uncond = decoder.text.prompt([""]).expand(BATCH)
        noise = torch.stack(
            [torch.randn(shape, generator=generator(start + i, "image")) for i in range(BATCH)]
        )
        decoder.pipeline(
            prompt_embeds=prompt.states_BLD,
            negative_prompt_embeds=uncond.states_BLD,
            latents=noise.to(prompt.states_BLD),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
        )


@dataclass(frozen=True)
class Cost:
    """FLOPs of one evaluation of the U-Net, and of one image by the autoencoder's decoder."""

    unet: int
    vae: int


@torch.no_grad()
def cost(decoder: StableDecoder) -> Cost:
    """What one image takes, counted while it is computed."""
    unet, vae = decoder.pipeline.unet, decoder.pipeline.vae
    states = decoder.text.prompt([""]).states_BLD
    size = decoder.resolution // decoder.pipeline.vae_scale_factor
    latents = torch.zeros(1, unet.config.in_channels, size, size).to(states)
    time = torch.tensor(1, device=states.device)
    with FlopCounterMode(display=False) as counted:
        unet(latents, time, encoder_hidden_states=states)
    with FlopCounterMode(display=False) as decoded:
        vae.decode(latents.to(vae.dtype))
    return Cost(counted.get_total_flops(), decoded.get_total_flops())
