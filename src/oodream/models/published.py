"""What networks by name say of themselves: how pictures become their input, and what their outputs are
called.

It comes from timm's and torchvision's tables and from the files of a transformers model. Nothing is guessed:
what is not said is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .external import processor_of

__all__ = ["Preprocessing", "Published", "published", "published_config"]

Triple = tuple[float, float, float]
BICUBIC = 3  # as Pillow numbers it
DISTORTED = "its own resizing squeezes the whole picture into a square, where here the centre square is taken"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Pictures become squares of `resized` pixels, whose middle `size` pixels the network gets: in [0, 1],
    less `mean`, over `std`. `size` is 0 where any will do. `remarks` say what the network's authors do
    otherwise.
    """

    size: int
    resized: int
    mean: Triple
    std: Triple
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Published:
    """A network's pre-processing, and all names of each of its outputs, as far as these are known."""

    preprocessing: Preprocessing | None = None
    names: tuple[tuple[str, ...], ...] = ()


def published(name: str, network: nn.Module) -> Published:
    """What is said of the network that `factory.backbone` has made by this name; nothing for most
    families.
    """
    family, _, model = name.partition(":")
    readers = {"timm": _timm, "torchvision": _torchvision, "hf": _transformers}
    return readers[family](model, network) if family in readers else Published()


def published_config(network: nn.Module) -> Mapping[str, Any]:
    """What timm says a network was trained on; empty for others."""
    return getattr(getattr(network, "body", None), "pretrained_cfg", None) or {}


def _timm(model: str, network: nn.Module) -> Published:
    from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config

    body: Any = network.body
    config = resolve_model_data_config(body)
    size = config["input_size"][-1]
    remarks = _resampled(config["interpolation"])
    if config["crop_mode"] == "squash":
        remarks = (*remarks, DISTORTED)
    preprocessing = Preprocessing(
        size=size,
        resized=max(size, round(size / config["crop_pct"])),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        remarks=remarks,
    )
    names: tuple[tuple[str, ...], ...] = ()
    if said := body.pretrained_cfg.get("label_names"):
        names = tuple((name,) for name in said)
    elif subset := infer_imagenet_subset(body):
        info = ImageNetInfo(subset)
        words = (text.split(", ") for text in info.label_descriptions(detailed=False))
        names = tuple((*text, key) for text, key in zip(words, info.label_names(), strict=True))
    return Published(preprocessing=preprocessing, names=names)


def _torchvision(model: str, network: nn.Module) -> Published:
    from torchvision import models

    weights = models.get_model_weights(model).DEFAULT
    transforms = weights.transforms()
    size = transforms.crop_size[0]
    preprocessing = Preprocessing(
        size=size,
        resized=max(size, transforms.resize_size[0]),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        remarks=_resampled(transforms.interpolation.value),
    )
    return Published(preprocessing=preprocessing, names=tuple((name,) for name in weights.meta["categories"]))


def _transformers(model: str, network: nn.Module) -> Published:
    body: Any = network.body
    said = [body.config.id2label[i] for i in range(body.config.num_labels)]
    nameless = all(name == f"LABEL_{i}" for i, name in enumerate(said))
    names = () if nameless else tuple(tuple(name.split(", ")) for name in said)
    config = processor_of(model)
    if not config:
        return Published(names=names)
    crop, side = config.get("crop_size"), config.get("size")
    size = _side(crop) or _side(side) or _side(getattr(body.config, "image_size", 0))
    resized, remarks = _side(side) or size, _resampled(config.get("resample", BICUBIC))
    if config.get("crop_pct") and not crop:  # ConvNeXt's way
        resized = round(size / config["crop_pct"])
    elif not config.get("do_center_crop") and isinstance(side, Mapping) and "height" in side:
        size, remarks = resized, (*remarks, DISTORTED)
    normalised = config.get("do_normalize", True)
    preprocessing = Preprocessing(
        size=size,
        resized=max(size, resized),
        mean=tuple(config.get("image_mean") or (0.5,) * 3) if normalised else (0.0,) * 3,
        std=tuple(config.get("image_std") or (0.5,) * 3) if normalised else (1.0,) * 3,
        remarks=remarks,
    )
    return Published(preprocessing=preprocessing, names=names)


def _side(size: Any) -> int:
    """The pixels a side that an entry of a processor's configuration means; 0 where it says none."""
    if isinstance(size, Mapping):
        return int(size.get("shortest_edge") or size.get("height") or 0)
    return int(size or 0)


def _resampled(method: Any) -> tuple[str, ...]:
    """A remark where pictures are not resized bicubically."""
    if method in ("bicubic", "random", BICUBIC):
        return ()
    name = {0: "nearest", 1: "lanczos", 2: "bilinear"}.get(method, method)
    return (f"its own resizing is {name}, here it is bicubic",)
