"""Image networks: uint8 images in, `Output(logits, z)` out. Normalisation lives inside, so nobody can apply another one.

Here are the built-in residual networks, `backbone`, which makes every network by name, weights from files, and the text-aligned
encoder over a network. Other people's networks are adapted in `backbones`; passes over image sets are in `passes`.
"""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path

from torch import nn

from ..core.errors import StoreError
from ..core.files import load_tensors
from .external import ADAPTERS
from .resnet import BACKBONES, ResNet

SCRATCH = "scratch"  # in place of a file of weights


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
        raise ValueError(
            f"{file} does not exist; weights are a safetensors file, or a classifier's folder with one."
        )
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
    shapes = {
        name: (tuple(theirs[name].shape), tuple(ours[name].shape)) for name in theirs.keys() & ours.keys()
    }
    unlike = {name: both for name, both in sorted(shapes.items()) if both[0] != both[1]}
    heads = [name for name, (a, b) in unlike.items() if name.startswith("head.") and a[1:] == b[1:]]
    wrong = [
        f"{name} is {a} in the file, {b} in the network"
        for name, (a, b) in unlike.items()
        if name not in heads
    ]
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
    model.load_state_dict(
        {name: tensor for name, tensor in theirs.items() if name not in heads}, strict=False
    )
