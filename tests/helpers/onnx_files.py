"""ONNX files as other programs write them."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper

from tests.helpers.guarded import SIZE, Logits

__all__ = ["product_and_sum", "save_logits_as_onnx"]


def save_logits_as_onnx(file: Path) -> Path:
    """`Logits` for batches of any size."""
    x, shapes = torch.rand(2, 3, SIZE, SIZE), ({0: torch.export.Dim.DYNAMIC},)
    torch.onnx.export(
        Logits().eval(), (x,), file, dynamic_shapes=shapes, dynamo=True, verbose=False, external_data=False
    )
    return file


def product_and_sum(
    file: Path, size: int, dtype: int = TensorProto.FLOAT, layout: str = "NCHW", batch: str | int = "n"
) -> Path:
    """A graph as other exporters write it: mean pixels, a matrix product, a sum, a softmax."""
    shape = [batch, 3, size, size] if layout == "NCHW" else [batch, size, size, 3]
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 4], list(range(12)))
    bias = helper.make_tensor("b", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [weight, bias, helper.make_tensor("axes", TensorProto.INT64, [2], axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)
    return file
