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
from .optimise import Fitting, batch_rows
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
            in_channels=4,
            out_channels=4,
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

    With z the latent, e the noise and a_t the schedule's cumulative product, `noisy` is sqrt(a_t) z + sqrt(1
    - a_t) e and `velocity` is sqrt(a_t) e - sqrt(1 - a_t) z.
    """

    prompts: list[str]
    t_B: Tensor
    noisy_BFHW: Tensor
    velocity_BFHW: Tensor


def noisy_batch(
    posteriors: Posteriors,
    captions: Sequence[str],
    weights: Tensor,
    scale: float,
    noising: Any,
    config: FitDecoderConfig,
    step: int,
) -> NoisyBatch:
    """The batch of a step: images in proportion to `weights`, each with its caption in a random template.

    The share `config.drop_caption` of the prompts is empty instead. `scale` is the VAE's scaling factor,
    `noising` a scheduler of diffusers.
    """
    rows, g = batch_rows(weights, config, "unet", step)
    template = torch.randint(len(config.templates), (config.batch,), generator=g).tolist()
    dropped = (torch.rand(config.batch, generator=g) < config.drop_caption).tolist()
    prompts = [
        "" if drop else config.templates[i].format(captions[row])
        for row, i, drop in zip(rows.tolist(), template, dropped, strict=True)
    ]
    mean, std = (part[rows].float() for part in (posteriors.mean, posteriors.std))
    z = (mean + std * torch.randn(mean.shape, generator=g)) * scale
    noise = torch.randn(z.shape, generator=g)
    t = torch.randint(noising.config.num_train_timesteps, (config.batch,), generator=g)
    return NoisyBatch(
        prompts=prompts,
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
    texts = sorted({t.format(c) for c in captions for t in config.templates} | {""})
    ids = pipeline.tokenizer(
        texts, padding="max_length", truncation=True, max_length=config.tokens, return_tensors="pt"
    ).input_ids
    row_of = {t: i for i, t in enumerate(texts)}
    modules, file = nn.ModuleDict({"text": text, "unet": unet}), work / "unet.state"
    fitting = Fitting(modules, file, config.unet_steps, config.unet_lr, config.ema, config.save_every)
    # PyTorch's fused attention is slow on a CPU in bfloat16: its backward pass took 44 % of a step.
    unfused = device.type == "cpu"
    for step in fitting.remaining("u-net"):
        batch = noisy_batch(posteriors, captions, weights, scale, noising, config, step)
        attention = sdpa_kernel(SDPBackend.MATH) if unfused else nullcontext()
        with torch.autocast(device.type, dtype=torch.bfloat16), attention:
            context = text(ids[[row_of[p] for p in batch.prompts]].to(device)).last_hidden_state
            predicted = unet(batch.noisy_BFHW.to(device), batch.t_B.to(device), context).sample
        if fitting.update((predicted.float() - batch.velocity_BFHW.to(device)).square().mean()):
            with fitting.averaged():
                prompts = shown_prompts(captions, weights, config)
                sample_grid(pipeline, prompts, work / "samples" / f"{fitting.step:07}.png")
    fitting.finish()
    return fitting.loss


def shown_prompts(captions: Sequence[str], weights: Tensor, config: FitDecoderConfig) -> list[str]:
    """The most frequent captions in the last template."""
    frequency: Counter[str] = Counter()
    for caption, weight in zip(captions, weights.tolist(), strict=True):
        frequency[caption] += weight
    return [config.templates[-1].format(caption) for caption, _ in frequency.most_common(SHOWN)]


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
