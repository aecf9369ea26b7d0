"""Corrupted images of known classes: what is measured on them is accuracy, not whether they are flagged.

The corruptions are kinds of ImageNet-C's (Hendrycks & Dietterich 2019) with strengths of this project's own,
in units of the image's width and its range of values, so that they mean the same at 32 and at 224 pixels.
Every corruption takes floats in [0, 1], (N, 3, H, W), and may leave that range.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..core.seeding import generator
from .images import Images, from_array

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "corrupted"]

SEVERITIES = (1, 3, 5)
Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def gaussian_noise(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Noise of one strength everywhere, as of a hot sensor."""
    return x_N3HW + 0.05 * severity * torch.randn(x_N3HW.shape, generator=g)


def shot_noise(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Poisson noise of few photons: stronger where it is bright."""
    photons = 80 / 2**severity
    return torch.poisson(x_N3HW * photons, generator=g) / photons


def impulse_noise(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Single values that are black or white."""
    hit = torch.rand(x_N3HW.shape, generator=g)
    share = 0.03 * severity
    return torch.where(hit < share / 2, 0.0, torch.where(hit < share, 1.0, x_N3HW))


def blur(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """A Gaussian blur, with channels last: PyTorch then takes a tenth of the time for the same bits."""
    sigma = 0.016 * severity * x_N3HW.shape[-1]
    reach = math.ceil(3 * sigma)
    kernel = (-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1).contiguous(memory_format=torch.channels_last)
    x = F.pad(x_N3HW, (reach,) * 4, mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.conv2d(x, kernel, groups=3), kernel.transpose(2, 3), groups=3).contiguous()


def contrast(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Everything nearer to the image's mean."""
    mean = x_N3HW.mean((1, 2, 3), keepdim=True)
    return mean + (1 - 0.18 * severity) * (x_N3HW - mean)


def brightness(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Everything brighter."""
    return x_N3HW + 0.1 * severity


def pixelate(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Fewer pixels."""
    side = x_N3HW.shape[-1]
    small = F.interpolate(x_N3HW, size=max(2, round(side * (1 - 0.15 * severity))), mode="area")
    return F.interpolate(small, size=(side, side), mode="nearest")


def jpeg(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Strong compression."""
    decoded = []
    for pixels in (x_N3HW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=30 - 5 * severity)
        decoded.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous() / 255


def rotate(x_N3HW: Tensor, severity: int, g: torch.Generator) -> Tensor:
    """Turned to either side by up to 9 degrees a step of severity, and at least by half of it; corners repeat
    the edge.
    """
    n = len(x_N3HW)
    angle = (
        math.radians(9 * severity)
        * (0.5 + 0.5 * torch.rand(n, generator=g))
        * (torch.randint(2, (n,), generator=g) * 2 - 1)
    )
    turn = torch.stack([angle.cos(), -angle.sin(), angle * 0, angle.sin(), angle.cos(), angle * 0], 1).view(
        n, 2, 3
    )
    grid = F.affine_grid(turn, list(x_N3HW.shape), align_corners=False)
    return F.grid_sample(x_N3HW, grid, padding_mode="border", align_corners=False)


CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f
    for f in (gaussian_noise, shot_noise, impulse_noise, blur, contrast, brightness, pixelate, jpeg, rotate)
}


def corrupted(images: Images, kind: str, severity: int, n: int, seed: int) -> Images:
    """`n` of the images (all if fewer), drawn by `seed`, corrupted at a severity from 1 to 5.

    Every kind has the same images.
    """
    rows = torch.randperm(len(images), generator=generator(seed, "corrupted"))[:n]
    g = generator(seed, "corrupted", kind, severity)
    parts = [CORRUPTIONS[kind](images.batch(part).float() / 255, severity, g) for part in rows.split(512)]
    pixels = (torch.cat(parts).clamp(0, 1) * 255).round().to(torch.uint8)
    return from_array(f"{kind}-{severity}", pixels, images.labels[rows], images.classes)
