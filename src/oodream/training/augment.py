"""How training images are shown.

All are shifted, cropped and mirrored, and softened; imagined ones also turn gray, and outliers take other
poses and tones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Optimisation
from ..data.images import Images

__all__ = [
    "Share",
    "Variation",
    "augment",
    "gray_fraction",
    "grayscale",
    "per_image",
    "recolored",
    "resized_crop",
    "soften",
    "vary",
]

# The limits of a varied outlier:
MAX_SCALE = 2.0  # its size, from half to twice
MAX_STRETCH = 1.5  # one side against the other
MAX_SHIFT = 0.4  # in half-widths of the image
MAX_GAIN = 3.0  # its contrast, from a third to three times
MAX_OFFSET = 80.0  # its brightness, in levels of 255

# The limits of a softened image:
SHARPEST, SOFTEST = -0.5, 1.0  # weights of the blurred image; below 0 the image is sharpened
MAX_GRAIN = 12.0  # standard deviation of its grain, in levels of 255
BINOMIAL = {-2: 1 / 16, -1: 4 / 16, 0: 6 / 16, 1: 4 / 16, 2: 1 / 16}  # the blur's weights by place


@dataclass(frozen=True, kw_only=True)
class Share:
    """The rows `rows` of `total` images, those that a process has. Random numbers are drawn for all images,
    so each is shown alike however many processes share them.
    """

    total: int
    rows: Tensor | slice = field(default_factory=lambda: slice(None))

    def __call__(self, drawn: Tensor) -> Tensor:
        """Of what was drawn for all images, along the first dimension, what belongs to these."""
        return drawn[self.rows]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How each of B images is shown: called with uint8 (B, 3, H, W), it returns what is shown, uint8 as well.

    Images with `gray_B` (bool) lose their colour. Those with `moved_B` (bool) go through the affine map
    `pose_B23`, in the convention of `affine_grid`; what lies outside is a reflection. Those with `toned_B`
    (bool) become 127.5 + gain (x - 127.5) + offset, cut off at black and white; a negative gain inverts.
    """

    gray_B: Tensor
    moved_B: Tensor
    pose_B23: Tensor
    toned_B: Tensor
    gain_B: Tensor
    offset_B: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Variation:
        return Variation(**{name: x[rows] for name, x in vars(self).items()})

    def __call__(self, images_B3HW: Tensor) -> Tensor:
        device = images_B3HW.device
        gray, moved, pose, toned, gain, offset = (x.to(device) for x in vars(self).values())
        shown = torch.where(per_image(gray), grayscale(images_B3HW), images_B3HW)
        if self.moved_B.any():
            images = shown[moved].float()
            grid = F.affine_grid(pose[moved], list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
            shown[moved] = images.round().to(torch.uint8)
        if self.toned_B.any():
            images = 127.5 + per_image(gain[toned]) * (shown[toned] - 127.5) + per_image(offset[toned])
            shown[toned] = images.clamp(0, 255).round().to(torch.uint8)
        return shown


def vary(gray_B: Tensor, prob: float, g: torch.Generator, known: int = 0) -> Variation:
    """Random poses, each image's with probability `prob`, and random tones, likewise and independently.

    What is unknown stays unknown however it is turned or lit, so one outlier becomes many. The first `known`
    images show known things, which might not stay what they are: they keep pose and tone, and at most turn
    gray.
    """
    B = len(gray_B)
    moved_B, toned_B = (torch.rand(2, B, generator=g) < prob) & (torch.arange(B) >= known)
    limits = torch.tensor([math.pi, math.log(MAX_SCALE), math.log(MAX_STRETCH), math.log(MAX_GAIN)])
    angle, scale, stretch, gain = (2 * torch.rand(4, B, generator=g) - 1) * limits[:, None]
    scale_B2 = torch.stack([scale + stretch, scale - stretch], 1).exp()
    rotation_B22 = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(B, 2, 2)
    shift_B21 = (2 * torch.rand(B, 2, 1, generator=g) - 1) * MAX_SHIFT
    inverted_B = torch.rand(B, generator=g) < 0.5
    return Variation(
        gray_B=gray_B,
        moved_B=moved_B,
        pose_B23=torch.cat([scale_B2[:, :, None] * rotation_B22, shift_B21], 2),
        toned_B=toned_B,
        gain_B=torch.where(inverted_B, -1, 1) * gain.exp(),
        offset_B=(2 * torch.rand(B, generator=g) - 1) * MAX_OFFSET,
    )


def soften(images_B3HW: Tensor, prob: float, g: torch.Generator, share: Share | None = None) -> Tensor:
    """The images, uint8 in and out; each with probability `prob` blurred or sharpened, with grain. They are a
    `share` of a batch, or all of it.

    Decoded images are a little softer than photographs. Where known images and outliers alike are softened at
    random, softness says nothing about which of them is known.

    The blur is a binomial one of 5 x 5 pixels, edges repeated, and `SHARPEST` to `SOFTEST` is its weight
    beside the image. Grain is Gaussian and gray, of a standard deviation up to `MAX_GRAIN`.
    """
    share = share or Share(total=len(images_B3HW))
    (H, W), B = images_B3HW.shape[2:], share.total
    softened_B = share(torch.rand(B, generator=g) < prob)
    weight_B = share(SHARPEST + (SOFTEST - SHARPEST) * torch.rand(B, generator=g))
    grain_B1HW = torch.randn(B, 1, H, W, generator=g) * per_image(MAX_GRAIN * torch.rand(B, generator=g))
    grain_B1HW = share(grain_B1HW)
    softened_B, weight_B, grain_B1HW = (x.to(images_B3HW.device) for x in (softened_B, weight_B, grain_B1HW))
    images = images_B3HW.float()
    blurred = blur_matrix(H).to(images) @ images @ blur_matrix(W).T.to(images)
    softer = torch.lerp(images, blurred, per_image(weight_B)) + grain_B1HW
    return torch.where(per_image(softened_B), softer.round().clamp(0, 255).to(torch.uint8), images_B3HW)


def blur_matrix(n: int) -> Tensor:
    """The binomial blur of n pixels in a row, edges repeated, as a matrix (n, n).

    Products with it are far faster on CPUs than a convolution of single channels.
    """
    at = torch.arange(n)
    matrix = torch.zeros(n, n)
    for place, weight in BINOMIAL.items():
        matrix[at, (at + place).clamp(0, n - 1)] += weight
    return matrix


def augment(
    images_B3HW: Tensor, config: Optimisation, g: torch.Generator, share: Share | None = None
) -> Tensor:
    """The images, uint8, as a training step shows them, uint8: flipped, shifted and cropped at random. They
    are a `share` of a batch, or all of it.

    They are flipped where `config` says so. A shift is of up to `crop_padding` pixels, edges repeated; with
    `min_area` below 1 a resized crop takes its place.
    """
    share, device = share or Share(total=len(images_B3HW)), images_B3HW.device
    B, _, H, W = images_B3HW.shape
    if config.flip:
        flipped = per_image(share(torch.rand(share.total, generator=g) < 0.5)).to(device)
        images_B3HW = torch.where(flipped, images_B3HW.flip(3), images_B3HW)
    if config.min_area < 1:
        return resized_crop(images_B3HW, config.min_area, g, share)
    if (pad := config.crop_padding) == 0:
        return images_B3HW
    padded = F.pad(images_B3HW.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    top, left = map(share, torch.randint(0, 2 * pad + 1, (2, share.total, 1), generator=g))
    rows, columns = (top + torch.arange(H)).to(device), (left + torch.arange(W)).to(device)
    row_B11 = torch.arange(B, device=device)[:, None, None]
    shifted_BHW3 = padded[row_B11, :, rows[:, :, None], columns[:, None, :]]
    return shifted_BHW3.permute(0, 3, 1, 2)


def resized_crop(
    images_B3HW: Tensor, min_area: float, g: torch.Generator, share: Share | None = None
) -> Tensor:
    """A random box of each image, resized to the image's size; uint8.

    The box has at least the share `min_area` of the image's area, and sides of 3:4 to 4:3. The crop of
    Szegedy et al. (2015), bilinear. A box that is wider or higher than the image is cut to it.
    """
    share = share or Share(total=len(images_B3HW))
    B = share.total
    area = torch.rand(B, generator=g) * (1 - min_area) + min_area
    stretch = (torch.rand(B, generator=g) * 2 - 1).mul(math.log(4 / 3) / 2).exp()
    half_B2 = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1)
    center_B2 = (torch.rand(B, 2, generator=g) * 2 - 1) * (1 - half_B2)
    theta_B23 = torch.cat([torch.diag_embed(half_B2), center_B2[:, :, None]], 2)
    grid = F.affine_grid(
        share(theta_B23).to(images_B3HW.device), list(images_B3HW.shape), align_corners=False
    )
    crops = F.grid_sample(
        images_B3HW.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return crops.round().to(torch.uint8)


def recolored(images_B3HW: Tensor, g: torch.Generator) -> Tensor:
    """The images' luma as a mixture of two random colours, in place of black and white; uint8 in and out."""
    luma = grayscale(images_B3HW)[:, :1].float() / 255
    dark, light = torch.rand(2, len(images_B3HW), 3, 1, 1, generator=g) * 255
    return (dark + luma * (light - dark)).round().to(torch.uint8)


def grayscale(images_B3HW: Tensor) -> Tensor:
    """The images' luma (ITU-R BT.601, as Pillow's mode L) in all three channels; uint8 in and out."""
    weight = torch.tensor([0.299, 0.587, 0.114], device=images_B3HW.device)[:, None, None]
    return (images_B3HW.float() * weight).sum(1, keepdim=True).round().to(torch.uint8).expand_as(images_B3HW)


def gray_fraction(images: Images, n: int = 1000) -> float:
    """The share of images without colour among the first `n`, rounded to four digits."""
    pixels = images.batch(range(min(n, len(images))))
    return round((pixels == pixels[:, :1]).flatten(1).all(1).float().mean().item(), 4)


def per_image(x_B: Tensor) -> Tensor:
    """One value for each image (B,), as images are multiplied with: (B, 1, 1, 1)."""
    return x_B[:, None, None, None]
