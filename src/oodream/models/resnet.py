"""The built-in residual networks (He et al. 2016): `ResNet`, and the sizes of it that have names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.types import Output

__all__ = ["BACKBONES", "Block", "Bottleneck", "ResNet"]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016, basic block)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, strided 3 x 3 and 1 x 1 convolutions to four times the width, with a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network on uint8 images (B, 3, H, W): penultimate features z (B, F) and class logits (B, C).

    Its stem is one 3 x 3 convolution, as for CIFAR; with `imagenet` it is a 7 x 7 one of stride 2 and a
    max-pool. Pixels are scaled to -1 to 1 inside. With `sigma` the features of every image have mean 0 and
    standard deviation `sigma` (ASCOOD, Regmi 2026); it is stored among the weights, so that they fit no
    network without it.
    """

    sigma: Tensor | None

    def __init__(
        self,
        classes: int,
        blocks: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        block: type[Block] | type[Bottleneck] = Block,
        stride: int = 1,
        imagenet: bool = False,
        sigma: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("sigma", torch.tensor(sigma) if sigma else None)
        width = widths[0]
        first = (
            nn.Conv2d(3, width, 7, 2, 3, bias=False)
            if imagenet
            else nn.Conv2d(3, width, 3, stride, 1, bias=False)
        )
        pool = [nn.MaxPool2d(3, 2, 1)] if imagenet else []
        self.stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), *pool)
        stages, inputs = [], width
        for i, (n, width) in enumerate(zip(blocks, widths, strict=True)):
            for j in range(n):
                stages.append(block(inputs, width, 2 if i > 0 and j == 0 else 1))
                inputs = width * block.expansion
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images_B3HW: Tensor) -> Output:
        return self.from_map(self.first_map(images_B3HW))

    def first_map(self, images_B3HW: Tensor) -> Tensor:
        """The maps (B, width, h, w) behind the stem, for uint8 images or floats in [0, 255]."""
        return self.stem((images_B3HW.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last))

    def from_map(self, x: Tensor) -> Output:
        """The output for such maps: all layers behind the stem."""
        z = self.stages(x).mean((2, 3))
        if self.sigma is not None:
            z = self.sigma * (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True) + 1e-6)
        return Output(logits_BC=self.head(z), z_BF=z)


DEPTHS = {
    "resnet18": (Block, (2, 2, 2, 2)),
    "resnet34": (Block, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet8": {"blocks": (1, 1, 1), "widths": (32, 64, 128), "stride": 2}
} | {
    name + suffix: {"block": block, "blocks": blocks, "imagenet": imagenet}
    for suffix, imagenet in (("", False), ("-224", True))
    for name, (block, blocks) in DEPTHS.items()
}
BACKBONES |= {f"{name}-z": {**sizes, "sigma": 0.5} for name, sizes in BACKBONES.items()}
