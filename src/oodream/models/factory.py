"""Image networks by name, and weights from files to begin with.

Every network takes uint8 images and returns `Output(logits, z)`. Normalisation lives inside, so nobody can
apply another one. The built-in networks are in `resnet`, other people's in `external`, files in exchange
formats in `serialized`.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import StoreError, did_you_mean
from ..core.tensors import load_tensors
from .external import ADAPTERS, Adapted
from .resnet import BACKBONES, ResNet
from .serialized import FORMATS

__all__ = [
    "SCRATCH",
    "backbone",
    "initial_network",
    "initial_weights_hash",
    "load_weights",
    "trained_network",
    "weights_file",
]

SCRATCH = "scratch"  # in place of a file of weights


def backbone(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """A network by name, from uint8 images (B, 3, H, W) to `Output` with logits (B, classes) = head(z).

    The name is a built-in one, or FAMILY:NAME of a family in `external.ADAPTERS`, such as
    `timm:resnet50.a1_in1k` or an `hf:` folder or hub id. `pretrained` gives the latter their published
    weights, with a fresh head where theirs has another class count; without it no weights are read or
    downloaded. With 0 classes they have as many as are published. Built-in names have no weights.

    Raises ValueError for a name that is unknown, with the nearest one, or that cannot be used, with what is
    missing.
    """
    family, _, model = name.partition(":")
    if model and family in ADAPTERS:
        return ADAPTERS[family](model, classes, pretrained)
    if name not in BACKBONES:
        known = ", ".join([*BACKBONES, *(f"{family}:NAME" for family in ADAPTERS)])
        raise ValueError(
            f"No backbone is called {name!r}.{did_you_mean(name, BACKBONES)} There are: {known}."
        )
    return ResNet(classes, **BACKBONES[name])


def initial_network(name: str, classes: int, init: str = "") -> nn.Module:
    """The network `name` as its training begins.

    Its weights are those of `init`, a safetensors file or a classifier's folder, whose head is left out, with
    a warning, where it has another class count. With "scratch" they are random, and with "" the published
    ones, where the name has some.
    """
    network = backbone(name, classes, pretrained=not init)
    if init and init != SCRATCH:
        load_weights(network, Path(init), new_head=True)
    return network


def initial_weights_hash(name: str, init: str = "") -> str:
    """A hash of the weights that `initial_network` reads; `init` itself where it reads none.

    Of published weights the head does not count, for it may be made anew.
    """
    if init == SCRATCH or not (init or name.partition(":")[0] in ADAPTERS):
        return init
    digest = hashlib.blake2b(digest_size=16)
    if init:
        digest.update(weights_file(Path(init)).read_bytes())
    else:
        for key, tensor in sorted(backbone(name, 2, pretrained=True).state_dict().items()):
            if not key.startswith("head."):
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_file(source: Path) -> Path:
    """A safetensors file, or that of a classifier's folder.

    Raises ValueError when it is missing or of another kind.
    """
    file = source / "model.safetensors" if source.is_dir() else source
    if not file.is_file():
        raise ValueError(
            f"{file} does not exist; weights are a safetensors file, or a classifier's folder with one."
        )
    if file.suffix != ".safetensors":
        raise ValueError(
            f"{file} is not read: only safetensors are, for a pickle can run code. "
            "Convert it where you trust it: "
            f"safetensors.torch.save_file(torch.load({file.name!r}, weights_only=True), "
            f"{file.stem + '.safetensors'!r})."
        )
    return file


def trained_network(name: str, weights: Path | None = None) -> nn.Module:
    """The network `name` with its published weights, or those of `weights`, and as many classes as these
    have.

    Weights are a safetensors file, or a classifier's folder; names of its library's own are understood.
    Raises ValueError for weights that are missing or do not fit.
    """
    if ":" not in name and name not in BACKBONES:
        backbone(name, 1)  # which says what there is
    if weights is None:
        if ":" not in name:
            raise ValueError(
                f"{name} has no published weights. Give --weights FILE.safetensors and --size; or in place "
                "of the name a classifier's folder, such as runs/photos/classifier/baseline-s0, which has "
                "both."
            )
        return backbone(name, 0, pretrained=True)
    if name.partition(":")[0] in FORMATS:
        raise ValueError(f"{name} has weights of its own; leave --weights out.")
    stored = _read_weights(weights_file(weights))
    if ":" in name:
        network = backbone(name, 0)
        assert isinstance(network, Adapted)
        stored = network.renamed(stored)
    if "head.weight" not in stored:
        raise ValueError(
            f"{weights} belongs to another network than {name}: it has no weights of the last layer."
        )
    network = backbone(name, len(stored["head.weight"]))
    load_weights(network, weights)
    return network


def load_weights(network: nn.Module, source: Path, new_head: bool = False) -> None:
    """Loads a safetensors file, or the `model.safetensors` of a classifier's folder, into `network`.

    With `new_head` a head of another class count is left out, with a warning.

    Raises ValueError when the file is no safetensors file, or does not fit: it names the first weights that
    do not.
    """
    file = weights_file(source)
    weights, state = _read_weights(file), network.state_dict()
    if isinstance(network, Adapted):
        weights = network.renamed(weights)
    heads = _other_heads(weights, state)
    if wrong := _misfits(weights, state, heads):
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{file} belongs to another network: {'; '.join(wrong[:3])}{more}.")
    if heads:
        message = (
            f"The head in {file} has {len(weights[heads[0]])} classes, the network {len(state[heads[0]])}"
        )
        if not new_head:
            raise ValueError(f"{message}: these weights belong to another list of classes.")
        warnings.warn(f"{message}: it is left out, and a new one begins from scratch.", stacklevel=2)
    network.load_state_dict({key: x for key, x in weights.items() if key not in heads}, strict=False)


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(file)
    except StoreError as error:
        raise ValueError(f"{file} is damaged, or no safetensors file ({error.__cause__}).") from error


def _other_heads(weights: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """The head's weights that differ in the number of classes alone."""
    return [
        key
        for key in sorted(weights.keys() & state.keys())
        if key.startswith("head.")
        and weights[key].shape != state[key].shape
        and weights[key].shape[1:] == state[key].shape[1:]
    ]


def _misfits(weights: dict[str, Tensor], state: dict[str, Tensor], heads: list[str]) -> list[str]:
    """What differs between a file and a network, beside `heads`, in words."""
    return [
        *(
            f"{key} is {tuple(weights[key].shape)} in the file, {tuple(state[key].shape)} in the network"
            for key in sorted(weights.keys() & state.keys() - set(heads))
            if weights[key].shape != state[key].shape
        ),
        *(f"{key} is not in the file" for key in state if key not in weights),
        *(f"{key} is not in the network" for key in weights if key not in state),
    ]
