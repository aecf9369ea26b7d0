"""Networks in ONNX files as parts of a guard's graph: while the guard is traced a placeholder stands for such
a network, and then the file's own nodes take its place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..core.types import Output
from ..models.ends import end_of_onnx
from ..models.serialized import FromFile, Onnx, TorchScript

__all__ = ["PREFIX", "Placeholder", "compose", "with_placeholders"]

DOMAIN, KIND = "oodream", "Network"
PREFIX = "network/"  # of the names in the file


class Placeholder(nn.Module):
    """Stands for the network in an ONNX `file`."""

    def __init__(self, file: Onnx) -> None:
        super().__init__()
        self.file = [file]  # in a list, for its content is no part of what is traced

    def forward(self, images_B3HW: Tensor) -> Output:
        (file,) = self.file
        features = 0 if file.head is None else file.head.in_features
        joined_B = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{KIND}", (file.prepared(images_B3HW),), dtype=torch.float32,
            shape=(images_B3HW.shape[0], file.outputs + features), version=1,
        )  # fmt: skip
        logits_BO, z_BF = joined_B[:, : file.outputs], joined_B[:, file.outputs :]
        return Output(logits_BC=logits_BO[:, file.rows], z_BF=z_BF)


def with_placeholders(network: nn.Module) -> nn.Module:
    """A copy of a network, on the CPU, with a placeholder for what is an ONNX file in it.

    Raises ValueError for a file that cannot be part of a graph, or takes batches of one size alone.
    """
    files = [part for part in network.modules() if isinstance(part, FromFile)]
    for file in files:
        if isinstance(file, TorchScript):
            raise ValueError(
                f"{file.name} is a TorchScript file, which cannot be part of a graph. Make a guard of the "
                "same network as an ONNX file, or as a program of torch.export."
            )
        if file.batch:
            raise ValueError(
                f"{file.name} is made for batches of {file.batch}, and a guard's graph takes any number of "
                "pictures. Make a guard of the same network with a batch of any size."
            )
    replaced = {id(file): Placeholder(file) for file in files if isinstance(file, Onnx)}
    return copy.deepcopy(network, replaced).cpu().eval()


def compose(model: Any, network: nn.Module) -> None:
    """Puts the nodes of the ONNX files in place of a network's placeholders in a graph, an onnx_ir.Model."""
    import onnx_ir

    files = [part.file[0] for part in network.modules() if isinstance(part, Placeholder)]
    nodes = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, KIND)]
    for file, node in zip(files, nodes, strict=True):
        part = onnx_ir.from_proto(_joined(file, model.opset_imports[""]))
        for name, value in [*part.graph.initializers.items()]:
            del part.graph.initializers[name]
            model.graph.register_initializer(value)
        (inner,), (result,) = part.graph.inputs, part.graph.outputs
        part.graph.inputs.clear()
        part.graph.outputs.clear()
        inside = [*part.graph]
        part.graph.remove(inside)
        model.graph.insert_before(node, inside)
        onnx_ir.convenience.replace_all_uses_with([inner, node.outputs[0]], [node.inputs[0], result])
        model.graph.remove(node, safe=True)
        model.opset_imports.update(part.opset_imports)
    model.opset_imports.pop(DOMAIN, None)


def _joined(file: Onnx, opset: int) -> Any:
    """The file's model with one input and one output: logits and features side by side, float32."""
    from onnx import TensorProto, compose, helper, inliner, load_from_string, version_converter

    content, _ = end_of_onnx(file.content.cpu().numpy().tobytes())
    model = inliner.inline_local_functions(load_from_string(content))
    if next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")) != opset:
        model = version_converter.convert_version(model, opset)
    graph = model.graph
    only = [value for value in graph.input if value.name == file.input.name]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(only)
    flat = []
    for i, name in enumerate(file.wanted):
        graph.node.add().CopyFrom(helper.make_node("Flatten", [name], [f"flat {i}"], axis=1))
        cast = helper.make_node("Cast", [f"flat {i}"], [f"float {i}"], to=TensorProto.FLOAT)
        graph.node.add().CopyFrom(cast)
        flat.append(f"float {i}")
    graph.node.add().CopyFrom(helper.make_node("Concat", flat, ["joined"], axis=1))
    for i, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type} {i}"
    del graph.output[:]
    graph.output.add().CopyFrom(helper.make_tensor_value_info("joined", TensorProto.FLOAT, None))
    return compose.add_prefix(model, PREFIX)
