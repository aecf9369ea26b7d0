"""The network that a benchmark measures: opened by folder or by name, and its class order compared with the
protocol's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import listed
from ..core.types import Loss
from ..models.classifier import load_classifier
from ..models.factory import backbone, load_weights
from ..models.inference import linear_head
from ..models.opened import Said, full_name, is_factory, normalisation, normalise, normalises, open_network
from ..models.published import published_config
from ..models.serialized import FORMATS
from .protocol import Protocol

__all__ = ["Model", "class_order", "open_model"]

OTHERWISE = " If it calls them otherwise, say so in the protocol's classes, or in a classes.toml beside them."


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network to be measured. Its image size, class names and training loss are empty where it has none of
    its own; `made_for` is the width that a published network was trained at, or a file takes alone.
    """

    name: str
    network: nn.Module
    size: int = 0
    names: tuple[str, ...] = ()
    loss: Loss | None = None
    made_for: int = 0


def open_model(
    source: str, weights: Path | None, protocol: Protocol, said: Said, plugins: bool = False
) -> Model:
    """A classifier's folder; a network's file; or a network by name, with its published weights or those of a
    safetensors file. Its mean and standard deviation are those that are `said`, or else its own.

    `plugins` allows a loss or a network that is named by its module, as `models.classifier.load_classifier`
    and `models.opened.open_network` do. Raises ValueError when the network has another number of classes than
    the protocol, or would have random weights, or normalises its pixels in no way that could be said.
    """
    folder, count = Path(source), len(protocol.classes)
    if folder.is_dir():
        if weights is not None:
            raise ValueError(f"{source} has weights of its own; leave --weights out.")
        normalisation(source, said, holds=False)
        classifier = load_classifier(folder, plugins)
        return Model(
            name=source,
            network=classifier.network,
            size=classifier.size,
            names=classifier.names,
            loss=classifier.loss,
        )
    name = full_name(source)
    network = _network(name, weights, count, said, plugins)
    if (head := linear_head(network)) is not None and (classes := len(head.weight_CF)) != count:
        raise ValueError(f"{name} knows {classes} classes and {protocol.name} has {count}.")
    made_for = getattr(network, "size", 0) or published_config(network).get("input_size", (0,))[-1]
    return Model(name=name, network=network.eval(), made_for=made_for)


def _network(name: str, weights: Path | None, count: int, said: Said, plugins: bool) -> nn.Module:
    """The network of this full name, for `count` classes where its weights are not published."""
    if is_factory(name):
        return open_network(name, weights, said, plugins).network
    published = weights is None and name.partition(":")[0] not in FORMATS
    network = backbone(name, 0 if published else count, pretrained=weights is None)
    if weights is not None:
        load_weights(network, weights)
    elif ":" not in name:
        raise ValueError(
            f"{name} has no published weights. Give --weights FILE.safetensors; or in place of the name a "
            "classifier's folder, such as runs/photos/classifier/baseline-s0."
        )
    if given := normalisation(name, said, normalises(network)):
        normalise(network, *given)
    return network


def class_order(model: Model, protocol: Protocol) -> Tensor | None:
    """The network's label (C,) of each of the protocol's classes; None where the labels are the same.

    Names are compared without case. A network or a protocol without class names counts as in the same order.
    Raises ValueError when the classes are others.
    """
    ours, theirs = ([name.casefold() for name in names] for names in (model.names, protocol.classes))
    unnamed = protocol.classes == tuple(map(str, range(len(ours))))
    if not ours or ours == theirs or unnamed:
        return None
    if sorted(ours) != sorted(theirs):
        lacking = listed(name for name, key in zip(protocol.classes, theirs, strict=True) if key not in ours)
        raise ValueError(
            f"{model.name} knows {len(ours)} classes and {protocol.name} has {len(theirs)}"
            + (f"; it does not know {lacking}.{OTHERWISE}" if lacking else ": it knows more.")
        )
    return torch.tensor([ours.index(name) for name in theirs])
