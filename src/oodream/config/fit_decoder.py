"""The options of `oodream fit-decoder`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..core.options import Range, Section
from .types import Count, CountOrNone, Fraction, NotNegative, Positive, Seed

__all__ = ["FitDecoderConfig"]


@dataclass(frozen=True, kw_only=True)
class FitDecoderConfig(Section):
    """Sizes, budget and optimisation of a small Stable Diffusion."""

    start: str = ""
    """an existing decoder that goes on learning (folder, hub id or "embedded"); its tokenizer, VAE and sizes
    are kept"""
    resolution: Annotated[int, Range(8)] = 32
    """width and height of its images, in pixels"""
    vae_channels: tuple[int, ...] = (32, 64, 64)
    """autoencoder widths; every level after the first halves the image"""
    latent_channels: Count = 8
    """channels of the latents"""
    unet_channels: tuple[int, ...] = (96, 160)
    """U-Net widths"""
    text_width: Count = 128
    """width of the token table and the text transformer"""
    text_layers: Count = 2
    """layers of the text transformer"""
    tokens: Annotated[int, Range(3)] = 24
    """longest prompt"""
    vocabulary: Annotated[int, Range(512)] = 4096
    """most tokens of the tokenizer"""
    vae_steps: CountOrNone = 3000
    """training steps of the autoencoder"""
    unet_steps: CountOrNone = 8000
    """training steps of U-Net and text transformer"""
    unet_seconds: NotNegative = 0.0
    """they end after so many seconds at the latest; 0: when the steps are done"""
    batch: Count = 48
    """images in a batch of U-Net and text transformer"""
    vae_batch: Count = 48
    """images in a batch of the autoencoder"""
    vae_lr: Positive = 1e-3
    """peak learning rate of the autoencoder"""
    unet_lr: Positive = 7e-4
    """peak learning rate of U-Net and text transformer"""
    drop_caption: Fraction = 0.1
    """share of captions dropped, for classifier-free guidance"""
    splice: Fraction = 0.5
    """share of the prompts in which one vector stands for the caption: its T(y) with noise, so that the
    vectors around T(y) show what it says"""
    splice_cosine: Annotated[float, Range(0, 1, "low")] = 0.5
    """least mean cosine of such vectors to T(y)"""
    ema: Annotated[float, Range(0, 1, "high")] = 0.9995
    """decay of the weights' moving average"""
    without: tuple[str, ...] = ()
    """names, or text files (.txt) with a name a line, that no caption may hold as whole words"""
    templates: tuple[str, ...] = ("{}", "a picture of a {}", "A high-quality image of the {}")
    """prompts a caption is put into"""
    save_every: Count = 250
    """steps between saved states and sample grids"""
    seed: Seed = 0
    """of everything random"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
