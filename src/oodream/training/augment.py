"""How training images are shown: known ones moved and mirrored, imagined outliers in other poses, tones and without colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Optimisation

SCALE, STRETCH, AWAY = (
    2.0,
    1.5,
    0.4,
)  # a varied outlier: from half to twice as large, stretched, moved by half-widths
GAIN, BRIGHTER = (
    3.0,
    80.0,
)  # its contrast: from a third to three times; grey levels it becomes lighter or darker by


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How each of B images is shown: called with them, uint8 (B, 3, H, W), it gives what is seen, uint8 as well.

    Where `grey_B` (bool), without colour. Where `moved_B` (bool), through the affine map `pose_B23`, as `affine_grid` takes it;
    what lies outside is a reflection. Where `toned_B` (bool), as 127.5 + gain (x - 127.5) + offset, cut off at black and white: a
    negative gain inverts.
    """

    grey_B: Tensor
    moved_B: Tensor
    pose_B23: Tensor
    toned_B: Tensor
    gain_B: Tensor
    offset_B: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Variation:
        return Variation(**{name: x[rows] for name, x in vars(self).items()})

    def __call__(self, images_B3HW: Tensor) -> Tensor:
        grey, moved, pose, toned, gain, offset = (x.to(images_B3HW.device) for x in vars(self).values())
        shown = torch.where(_each(grey), greyscale(images_B3HW), images_B3HW)
        if moved.any():
            some = shown[moved].float()
            grid = F.affine_grid(pose[moved], list(some.shape), align_corners=False)
            shown[moved] = (
                F.grid_sample(some, grid, padding_mode="reflection", align_corners=False)
                .round()
                .to(torch.uint8)
            )
        if toned.any():
            toned_T3HW = 127.5 + _each(gain[toned]) * (shown[toned] - 127.5) + _each(offset[toned])
            shown[toned] = toned_T3HW.clamp(0, 255).round().to(torch.uint8)
        return shown


def vary(grey_B: Tensor, share: float, g: torch.Generator, known: int = 0) -> Variation:
    """Random poses for the share `share` of images and tones for another; what is unknown stays so, however it is turned or lit.

    That makes many outliers of one. The first `known` images show known things, which might not stay what they are: at most they
    turn grey.
    """
    B = len(grey_B)
    moved_B, toned_B = (torch.rand(2, B, generator=g) < share) & (torch.arange(B) >= known)
    angle, size, stretch, gain = (2 * torch.rand(4, B, generator=g) - 1) * torch.tensor(
        [math.pi, math.log(SCALE), math.log(STRETCH), math.log(GAIN)]
    )[:, None]
    wide_B2 = torch.stack([size + stretch, size - stretch], 1).exp()
    rotation_B22 = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(B, 2, 2)
    away_B21 = (2 * torch.rand(B, 2, 1, generator=g) - 1) * AWAY
    inverted_B = torch.rand(B, generator=g) < 0.5
    return Variation(
        grey_B=grey_B, moved_B=moved_B, pose_B23=torch.cat([wide_B2[:, :, None] * rotation_B22, away_B21], 2), toned_B=toned_B,
        gain_B=torch.where(inverted_B, -1, 1) * gain.exp(), offset_B=(2 * torch.rand(B, generator=g) - 1) * BRIGHTER,
    )  # fmt: skip


def _each(x_B: Tensor) -> Tensor:
    return x_B[:, None, None, None]


def augment(images_B3HW: Tensor, config: Optimisation, g: torch.Generator) -> Tensor:
    """Random shift by up to `crop_padding` pixels (edges repeated) or resized crop, and, if asked, flip; uint8 in and out."""
    B, _, H, W = images_B3HW.shape
    if config.flip:
        flipped = torch.rand(B, generator=g) < 0.5
        images_B3HW = torch.where(flipped[:, None, None, None], images_B3HW.flip(3), images_B3HW)
    if config.min_area < 1:
        return resized_crop(images_B3HW, config.min_area, g)
    if (pad := config.crop_padding) == 0:
        return images_B3HW
    padded = F.pad(images_B3HW.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    top, left = torch.randint(0, 2 * pad + 1, (2, B, 1), generator=g)
    rows, columns = top + torch.arange(H), left + torch.arange(W)
    return padded[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def resized_crop(images_B3HW: Tensor, min_area: float, g: torch.Generator) -> Tensor:
    """A random box of each image, of at least that share of its area and sides of 3:4 to 4:3, at the image's size; uint8.

    The crop of Szegedy et al. (2015), bilinear; a box that is wider or higher than the image is cut to it.
    """
    B = len(images_B3HW)
    area = torch.rand(B, generator=g) * (1 - min_area) + min_area
    stretch = (torch.rand(B, generator=g) * 2 - 1).mul(math.log(4 / 3) / 2).exp()
    half_B2 = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1)
    centre_B2 = (torch.rand(B, 2, generator=g) * 2 - 1) * (1 - half_B2)
    theta_B23 = torch.cat([torch.diag_embed(half_B2), centre_B2[:, :, None]], 2)
    grid = F.affine_grid(theta_B23, list(images_B3HW.shape), align_corners=False)
    cut = F.grid_sample(
        images_B3HW.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return cut.round().to(torch.uint8)


def coloured(images_B3HW: Tensor, g: torch.Generator) -> Tensor:
    """The images' luma as a mixture of two random colours, one for black and one for white; uint8 in and out."""
    share = greyscale(images_B3HW)[:, :1].float() / 255
    dark, light = torch.rand(2, len(images_B3HW), 3, 1, 1, generator=g) * 255
    return (dark + share * (light - dark)).round().to(torch.uint8)


def greyscale(images_B3HW: Tensor) -> Tensor:
    """The images' luma (ITU-R BT.601, as Pillow's mode L) in all three channels; uint8 in and out."""
    weight = torch.tensor([0.299, 0.587, 0.114], device=images_B3HW.device)[:, None, None]
    return (images_B3HW.float() * weight).sum(1, keepdim=True).round().to(torch.uint8).expand_as(images_B3HW)
