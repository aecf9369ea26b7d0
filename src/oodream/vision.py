"""Image networks: uint8 images in, `Output(logits, z)` out. Normalisation lives inside, so nobody can apply another one.

Here are the built-in residual networks, `backbone`, which makes every network by name, weights from files, and the text-aligned
encoder over a network. Other people's networks are adapted in `backbones`; passes over image sets are in `passes`.
"""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones import ADAPTERS
from .store import StoreError, load_tensors
from .types import ClassBook, Output

SCRATCH = "scratch"  # in place of a file of weights


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
    """1 x 1, 3 x 3 and 1 x 1 convolutions to four times the width, with a shortcut (He et al. 2016; the 3 x 3 one strides)."""

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
    """A residual network (He et al. 2016) on uint8 images (B, 3, H, W): penultimate features z (B, F) and class logits (B, C).

    Its stem is one 3 x 3 convolution, as for CIFAR; with `imagenet` a 7 x 7 one of stride 2 and a max-pool.
    """

    def __init__(
        self,
        classes: int,
        blocks: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        block: type[Block] | type[Bottleneck] = Block,
        stride: int = 1,
        imagenet: bool = False,
    ) -> None:
        super().__init__()
        width = widths[0]
        first = nn.Conv2d(3, width, 7, 2, 3, bias=False) if imagenet else nn.Conv2d(3, width, 3, stride, 1, bias=False)
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
        """What the first layer makes of images."""
        return self.stem((images_B3HW.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last))

    def from_map(self, x: Tensor) -> Output:
        """What the other layers make of that."""
        z = self.stages(x).mean((2, 3))
        return Output(logits_BC=self.head(z), z_BF=z)


DEPTHS = {"resnet18": (Block, (2, 2, 2, 2)), "resnet34": (Block, (3, 4, 6, 3)), "resnet50": (Bottleneck, (3, 4, 6, 3))}
BACKBONES: dict[str, dict[str, Any]] = {"resnet8": {"blocks": (1, 1, 1), "widths": (32, 64, 128), "stride": 2}} | {
    name + suffix: {"block": block, "blocks": blocks, "imagenet": imagenet}
    for suffix, imagenet in (("", False), ("-224", True))
    for name, (block, blocks) in DEPTHS.items()
}


def backbone(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """A network by name, from uint8 images (B, 3, H, W) to `Output` with logits (B, classes) = head(z).

    A built-in name, `timm:NAME`, or `hf:NAME` (a transformers folder or hub id). `pretrained` gives the latter two their published
    weights, with a fresh head where theirs has another class count; without it no weights are read or downloaded. Built-in names
    have none. ValueError names the nearest name, or says what is missing.
    """
    family, _, model = name.partition(":")
    if model and family in ADAPTERS:
        return ADAPTERS[family](model, classes, pretrained)
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, n=1) or ["resnet8"]
        listed = ", ".join([*BACKBONES, *(f"{family}:NAME" for family in ADAPTERS)])
        raise ValueError(f"No backbone is called {name!r}. Did you mean {near[0]!r}? There are: {listed}.")
    return ResNet(classes, **BACKBONES[name])


def weights_file(source: Path) -> Path:
    """A safetensors file, or that of a classifier's folder; ValueError when it is missing or of another kind."""
    file = source / "model.safetensors" if source.is_dir() else source
    if not file.is_file():
        raise ValueError(f"{file} does not exist; weights are a safetensors file, or a classifier's folder with one.")
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{file} is not read: only safetensors are, for a pickle can run code. Convert it where you trust it: "
            f"safetensors.torch.save_file(torch.load({file.name!r}, weights_only=True), {file.stem + '.safetensors'!r})."
        )
    return file


def load_weights(model: nn.Module, source: Path, new_head: bool = False) -> None:
    """Loads a safetensors file, or the `model.safetensors` of a classifier's folder, into `model`.

    With `new_head` a head of another class count is left out, with a warning. ValueError when the file is no safetensors file, or
    does not fit: it names the first weights that do not.
    """
    file = weights_file(source)
    try:
        theirs = load_tensors(file)
    except StoreError as error:
        raise ValueError(f"{file} is damaged, or no safetensors file ({error.__cause__}).") from error
    ours = model.state_dict()
    shapes = {name: (tuple(theirs[name].shape), tuple(ours[name].shape)) for name in theirs.keys() & ours.keys()}
    unlike = {name: both for name, both in sorted(shapes.items()) if both[0] != both[1]}
    heads = [name for name, (a, b) in unlike.items() if name.startswith("head.") and a[1:] == b[1:]]
    wrong = [f"{name} is {a} in the file, {b} in the network" for name, (a, b) in unlike.items() if name not in heads]
    wrong += [f"{name} is not in the file" for name in ours if name not in theirs]
    wrong += [f"{name} is not in the network" for name in theirs if name not in ours]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{file} belongs to another network: {'; '.join(wrong[:3])}{more}.")
    if heads:
        has, needs = (shape[0] for shape in unlike[heads[0]])
        told = f"The head in {file} has {has} classes, the network {needs}"
        if not new_head:
            raise ValueError(f"{told}: these weights belong to another list of classes.")
        warnings.warn(f"{told}: it is left out, and a new one begins from scratch.", stacklevel=2)
    model.load_state_dict({name: tensor for name, tensor in theirs.items() if name not in heads}, strict=False)


class AlignedEncoder(nn.Module):
    """h(x) in the text's token space: logits are cos(h(x), T(y)) / temperature, z is h(x) / ||h(x)|| (DREAM-OOD eq. 2)."""

    tokens_CD: Tensor

    def __init__(self, name: str, book: ClassBook, temperature: float, pretrained: bool = False) -> None:
        super().__init__()
        self.network = backbone(name, book.tokens_CD.shape[1], pretrained)
        self.temperature = temperature
        self.register_buffer("tokens_CD", F.normalize(book.tokens_CD, dim=1))

    def forward(self, images_B3HW: Tensor) -> Output:
        z = F.normalize(self.network(images_B3HW).logits_BC, dim=1)
        return Output(logits_BC=z @ self.tokens_CD.T / self.temperature, z_BF=z)
