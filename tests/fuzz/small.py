"""A guard without training and its graph, small enough to be read ten thousand times."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.images import Images, from_array
from oodream.deploy.guard import Guard
from oodream.models.classifier import Classifier
from oodream.models.factory import backbone
from oodream.runtime.description import KEY, describe

__all__ = ["SIDE", "classifier", "graph", "guard", "images"]

SIDE = 8
NAMES = ("cat", "dog", "ship")


def images(n: int) -> Images:
    """Noise, with labels."""
    g = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=g, dtype=torch.uint8)
    return from_array("noise", pixels, torch.arange(n) % len(NAMES), NAMES)


@functools.cache
def classifier() -> Classifier:
    """An untrained resnet8 with a loss that has weights of its own."""
    with seeded(0, "fuzz"):
        network, loss = backbone("resnet8", len(NAMES)), make("losses", "energy_logistic")
    settings = {"backbone": "resnet8", "loss": "energy_logistic", "loss_options": {"beta": 1.0}}
    return Classifier(
        network=network.eval(), loss=loss, names=NAMES, size=SIDE, threshold=0.0, settings=settings
    )


@functools.cache
def guard() -> Guard:
    """A guard of it by its distance from classes' means, which learns tensors."""
    return Guard.calibrate(classifier(), "ssd", images(60), images(90), alpha=0.1)


def graph(text: str, file: Path | None = None, external: str = "") -> bytes:
    """An ONNX file with a guard's inputs and outputs and this description; `external` is where its weights
    are said to lie.
    """
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, len(NAMES)], list(range(3 * len(NAMES))))
    if external:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", external
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["logits"]),
        helper.make_node("ReduceMax", ["logits", "last"], ["score32"], keepdims=0),
        helper.make_node("Cast", ["score32"], ["score"], to=TensorProto.DOUBLE),
        helper.make_node("Greater", ["score32", "limit"], ["unknown"]),
    ]
    numbers = [
        ("axes", TensorProto.INT64, [2, 3]),
        ("last", TensorProto.INT64, [1]),
        ("limit", TensorProto.FLOAT, [0]),
    ]
    outputs = [
        ("logits", TensorProto.FLOAT, ["n", len(NAMES)]),
        ("score", TensorProto.DOUBLE, ["n"]),
        ("unknown", TensorProto.BOOL, ["n"]),
    ]
    whole = helper.make_graph(
        nodes,
        "guard",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [
            weight,
            *(
                helper.make_tensor(name, kind, [len(v)] if kind == TensorProto.INT64 else [], v)
                for name, kind, v in numbers
            ),
        ],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: text})
    content = model.SerializeToString()
    if file is not None:
        file.write_bytes(content)
    onnx.checker.check_model(content) if not external else None
    return content


@functools.cache
def description() -> str:
    """What the guard's graph says of it."""
    return describe(guard())
