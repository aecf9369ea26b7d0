"""Image networks: uint8 images in, `Output(logits, z)` out. Normalisation lives inside, so nobody can apply another one.

Here are the built-in small residual networks, the text-aligned encoder over one of them, and the single forward pass over a set.
"""

from __future__ import annotations

import difflib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .images import Images
from .types import ClassBook, Output

BACKBONES: dict[str, dict[str, tuple[int, ...] | int]] = {
    "resnet8": {"blocks": (1, 1, 1), "widths": (32, 64, 128), "stride": 2},
    "resnet18": {"blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "stride": 1},
    "resnet34": {"blocks": (3, 4, 6, 3), "widths": (64, 128, 256, 512), "stride": 1},
}


class Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al. 2016, basic block)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        same = inputs == width and stride == 1
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network on uint8 images (B, 3, H, W): penultimate features z (B, F) and class logits (B, C)."""

    def __init__(self, classes: int, blocks: tuple[int, ...], widths: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, stride, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        stages, inputs = [], widths[0]
        for i, (n, width) in enumerate(zip(blocks, widths, strict=True)):
            for j in range(n):
                stages.append(Block(inputs, width, 2 if i > 0 and j == 0 else 1))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images_B3HW: Tensor) -> Output:
        x = (images_B3HW.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        z = self.stages(self.stem(x)).mean((2, 3))
        return Output(logits_BC=self.head(z), z_BF=z)


def backbone(name: str, classes: int) -> ResNet:
    """An untrained network by name; ValueError names the nearest one."""
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1) or ["resnet8"]
        raise ValueError(f"No backbone is called {name!r}. Did you mean {near[0]!r}? There are: {', '.join(BACKBONES)}.")
    return ResNet(classes, **BACKBONES[name])  # type: ignore[arg-type]


class AlignedEncoder(nn.Module):
    """h(x) in the text's token space: logits are cos(h(x), T(y)) / temperature, z is h(x) / ||h(x)|| (DREAM-OOD eq. 2)."""

    tokens_CD: Tensor

    def __init__(self, name: str, book: ClassBook, temperature: float) -> None:
        super().__init__()
        self.network = backbone(name, book.tokens_CD.shape[1])
        self.temperature = temperature
        self.register_buffer("tokens_CD", F.normalize(book.tokens_CD, dim=1))

    def forward(self, images_B3HW: Tensor) -> Output:
        z = F.normalize(self.network(images_B3HW).logits_BC, dim=1)
        return Output(logits_BC=z @ self.tokens_CD.T / self.temperature, z_BF=z)


@torch.no_grad()
def outputs(model: nn.Module, images: Images, device: torch.device, batch: int = 512) -> Output:
    """The model's outputs for a whole set, in order, in evaluation mode, on the CPU."""
    model.eval()
    parts = [model(x.to(device)) for x, _ in images.batches(batch)]
    return Output(logits_BC=torch.cat([p.logits_BC.cpu() for p in parts]), z_BF=torch.cat([p.z_BF.cpu() for p in parts]))
