"""A real, tiny Stable Diffusion with random weights, and pictures of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from oodream.config import FitDecoderConfig

NAMES = ("circle", "square", "star")
TINY = FitDecoderConfig(
    vae_channels=(8, 8, 8),
    latent_channels=4,
    unet_channels=(16, 32),
    text_width=32,
    text_layers=1,
    vocabulary=700,
    vae_steps=3,
    unet_steps=3,
    batch=4,
    vae_batch=4,
    save_every=2,
    unet_lr=1e-3,
    tokens=20,
)


def save_tiny_pipeline(folder: Path, seed: int = 0, words: Sequence[str] = NAMES) -> Path:
    """A random-weight `StableDiffusionPipeline` (32 pixels) that knows `words` as single tokens."""
    from oodream.synthesis.fit_decoder import build_pipeline, fit_tokenizer

    captions = [f"{colour} {name}" for name in words for colour in ("red", "blue")] * 8
    config = replace(TINY, vocabulary=TINY.vocabulary + 16 * (len(words) - len(NAMES)))
    tokenizer = fit_tokenizer(captions, config, folder.with_name(folder.name + "-tokenizer"))
    torch.manual_seed(seed)
    build_pipeline(tokenizer, autoencoder(), TINY).save_pretrained(folder)
    return folder


def autoencoder():
    """That of both pipelines, with random weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=TINY.vae_channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def save_tiny_xl_pipeline(folder: Path) -> Path:
    """A random-weight `StableDiffusionXLPipeline` (32 pixels): two tokenizers, two text encoders, a pooled
    vector, size ids.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from oodream.synthesis.fit_decoder import fit_tokenizer

    captions = [f"{colour} {name}" for name in NAMES for colour in ("red", "blue")] * 8
    first, second = (
        fit_tokenizer(captions, TINY, folder.with_name(f"{folder.name}-tokenizer{i}")) for i in (1, 2)
    )
    second.pad_token = "!"  # as SDXL's second tokenizer has it

    def text(tokenizer, width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TINY.tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=24 + 40,
        norm_num_groups=8,
        attention_head_dim=8,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 40,
        transformer_layers_per_block=(1, 1),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = autoencoder()
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text(first, 24)),
        text_encoder_2=CLIPTextModelWithProjection(text(second, 40)),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def draw(kind: str, size: int, g: np.random.Generator) -> Image.Image:
    """A bright shape on black, somewhere: enough for a small network to learn from."""
    yy, xx = np.mgrid[:size, :size] / size - 0.5 - g.uniform(-0.08, 0.08, (2, 1, 1))
    r = g.uniform(0.25, 0.35)
    inside = {
        "circle": xx**2 + yy**2 < r**2,
        "square": np.maximum(abs(xx), abs(yy)) < r,
        "star": abs(xx) * abs(yy) < r**2 / 12,
    }[kind]
    return Image.fromarray(
        (inside * g.uniform(150, 255) + g.uniform(0, 20, inside.shape)).clip(0, 255).astype(np.uint8)
    )
