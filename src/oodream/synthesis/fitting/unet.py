"""The text transformer and the U-Net, trained together on latents by v-prediction (Salimans & Ho 2022)."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...config import FitDecoderConfig
from ...core.files import write_bytes
from ...core.seeding import generator, seeded
from .optimise import Fitting, ahead, batch_rows
from .prompts import Prompts, name_and_template
from .vae import Posteriors

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTokenizer

__all__ = ["NoisyBatch", "build_pipeline", "fit_unet", "noisy_batch"]

SHOWN = 16
"""captions, the most frequent ones, in a sample grid"""


def build_pipeline(
    tokenizer: CLIPTokenizer, vae: AutoencoderKL, config: FitDecoderConfig
) -> StableDiffusionPipeline:
    """An untrained text transformer and U-Net around the trained VAE, as a `StableDiffusionPipeline`."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=config.text_width, intermediate_size=4 * config.text_width,
        projection_dim=config.text_width, num_hidden_layers=config.text_layers, num_attention_heads=4,
        max_position_embeddings=config.tokens, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    levels = len(config.unet_channels)
    with seeded(config.seed, "fit-decoder", "unet"):
        text_encoder = CLIPTextModel(text)
        unet = UNet2DConditionModel(
            sample_size=config.resolution // 2 ** (len(config.vae_channels) - 1),
            in_channels=vae.config.latent_channels,
            out_channels=vae.config.latent_channels,
            block_out_channels=config.unet_channels,
            layers_per_block=1,
            cross_attention_dim=config.text_width,
            norm_num_groups=math.gcd(32, *config.unet_channels),
            down_block_types=("CrossAttnDownBlock2D",) * levels,
            up_block_types=("CrossAttnUpBlock2D",) * levels,
        )
    scheduler = DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NoisyBatch:
    """What one step shows the networks: prompts, times in the noise schedule, noisy latents; and their
    velocities, the target.

    `row_B` are rows of `Prompts`, and `cosine_B` and `noise_BD` its vectors in a caption's place. With z the
    latent, e the noise and a_t the schedule's cumulative product, `noisy` is sqrt(a_t) z + sqrt(1 - a_t) e
    and `velocity` is sqrt(a_t) e - sqrt(1 - a_t) z.
    """

    row_B: Tensor
    cosine_B: Tensor
    noise_BD: Tensor
    t_B: Tensor
    noisy_BFHW: Tensor
    velocity_BFHW: Tensor

    def to(self, device: torch.device) -> NoisyBatch:
        """The batch on a device."""
        return NoisyBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def noisy_batch(
    posteriors: Posteriors,
    prompt_rows: Tensor,
    empty: int,
    weights: Tensor,
    scale: float,
    noising: Any,
    config: FitDecoderConfig,
    step: int,
) -> NoisyBatch:
    """The batch of a step: images in proportion to `weights`, each with its caption in a random template.

    `prompt_rows` (N, templates) are the rows of `Prompts` by image, and `empty` that of the empty prompt,
    which the share `config.drop_caption` has instead. In the share `config.splice` of the others the caption
    is one vector. `scale` is the VAE's scaling factor, `noising` a scheduler of diffusers.
    """
    rows, g = batch_rows(weights, n := config.batch, config.seed, "unet", step)
    row_B = prompt_rows[rows, torch.randint(prompt_rows.shape[1], (n,), generator=g)]
    row_B = torch.where(torch.rand(n, generator=g) < config.drop_caption, empty, row_B)
    cosine_B = config.splice_cosine + (1 - config.splice_cosine) * torch.rand(n, generator=g)
    cosine_B = torch.where(torch.rand(n, generator=g) < config.splice, cosine_B, 0.0)
    mean, std = (part[rows].float() for part in (posteriors.mean, posteriors.std))
    z = (mean + std * torch.randn(mean.shape, generator=g)) * scale
    noise = torch.randn(z.shape, generator=g)
    t = torch.randint(noising.config.num_train_timesteps, (n,), generator=g)
    return NoisyBatch(
        row_B=row_B,
        cosine_B=cosine_B,
        noise_BD=torch.randn(n, config.text_width, generator=g),
        t_B=t,
        noisy_BFHW=noising.add_noise(z, noise, t),
        velocity_BFHW=noising.get_velocity(z, noise, t),
    )


def fit_unet(
    pipeline: StableDiffusionPipeline, posteriors: Posteriors, captions: Sequence[str], weights: Tensor,
    config: FitDecoderConfig, work: Path, device: torch.device,
) -> float:  # fmt: skip
    """Trains text transformer and U-Net; leaves the moving average of their weights in the pipeline. Returns
    the last loss.
    """
    from diffusers import DDPMScheduler

    text, unet = pipeline.text_encoder.to(device), pipeline.unet.to(device)
    unet.to(memory_format=torch.channels_last)
    scale, noising = pipeline.vae.config.scaling_factor, DDPMScheduler.from_config(pipeline.scheduler.config)
    prompts = Prompts(pipeline.tokenizer, captions, config.templates, device)
    templates = range(len(config.templates))
    prompt_rows = torch.tensor([[prompts.row(caption, i) for i in templates] for caption in captions])
    modules, file = nn.ModuleDict({"text": text, "unet": unet}), work / "unet.state"
    fitting = Fitting(
        modules, file, config.unet_steps, config.unet_lr, config.ema, config.save_every, config.unet_seconds
    )

    def make(step: int) -> NoisyBatch:
        return noisy_batch(posteriors, prompt_rows, prompts.empty, weights, scale, noising, config, step)

    # PyTorch's fused attention is slow on a CPU in bfloat16: its backward pass took 44 % of a step.
    unfused = device.type == "cpu"
    for made in ahead(make, fitting.remaining("u-net")):
        batch = made.to(device)
        attention = sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext()
        with torch.autocast(device.type, dtype=torch.bfloat16), attention:
            context = prompts.encode(text, batch.row_B, batch.cosine_B, batch.noise_BD)
            predicted = unet(batch.noisy_BFHW, batch.t_B, context).sample
        if fitting.update((predicted.float() - batch.velocity_BFHW).square().mean()):
            with fitting.averaged():
                shown = shown_prompts(captions, weights, config)
                sample_grid(pipeline, shown, work / "samples" / f"{fitting.step:07}.png")
    fitting.finish()
    return fitting.loss


def shown_prompts(captions: Sequence[str], weights: Tensor, config: FitDecoderConfig) -> list[str]:
    """The most frequent captions, in the last template or in prompts of their own."""
    frequency: Counter[str] = Counter()
    for caption, weight in zip(captions, weights.tolist(), strict=True):
        frequency[caption] += weight
    top = [name_and_template(caption) for caption, _ in frequency.most_common(SHOWN)]
    return [(own or config.templates[-1]).format(name) for name, own in top]


def sample_grid(pipeline: StableDiffusionPipeline, prompts: Sequence[str], file: Path) -> None:
    """Generates one picture for every prompt, always from the same noise, and writes all into one PNG."""
    from diffusers.utils import make_image_grid

    pipeline.set_progress_bar_config(disable=True)
    noise = [generator(0, "grid", i) for i in range(len(prompts))]
    pictures = pipeline(list(prompts), generator=noise, num_inference_steps=15, guidance_scale=3.0).images
    columns = math.ceil(len(pictures) ** 0.5)
    blank = [Image.new("RGB", pictures[0].size)] * (-len(pictures) % columns)
    buffer = io.BytesIO()
    make_image_grid(pictures + blank, rows=-(-len(pictures) // columns), cols=columns).save(buffer, "PNG")
    write_bytes(file, buffer.getvalue())
