"""Where networks in exchange formats end: the last linear layer in their graphs, of which both its input, the
features, and its weights are wanted.

What stands behind it and changes no order of the classes, a softmax say, is cut off. Nothing here runs a
network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.graph import CodeGen

from ..core.types import Head

__all__ = ["ProgramEnd", "end_of_onnx", "end_of_program", "onnx_content"]

SOFTMAX = ("Softmax", "LogSoftmax")
ONNX_PASSED = ("Identity", "Dropout", *SOFTMAX)
PROGRAM_PASSED = (
    torch.ops.aten.softmax.int,
    torch.ops.aten._softmax.default,
    torch.ops.aten.log_softmax.int,
    torch.ops.aten._log_softmax.default,
)
TRANSPOSED = (torch.ops.aten.permute.default, torch.ops.aten.t.default, torch.ops.aten.transpose.int)


def onnx_content(file: Path) -> bytes:
    """An ONNX file's bytes, together with the weights that lie in files beside it.

    Raises ValueError where these are missing.
    """
    content = file.read_bytes()
    try:
        import onnx
        from onnx.external_data_helper import uses_external_data

        model = onnx.load_from_string(content)
        if not any(map(uses_external_data, model.graph.initializer)):
            return content
        return onnx.load(file).SerializeToString()
    except ImportError:
        return content
    except Exception as error:  # the parser has exceptions of its own
        raise ValueError(f"{file} is no ONNX file, or its weights are not beside it: {error}") from error


def end_of_onnx(content: bytes) -> tuple[bytes, Head | None]:
    """The graph with logits and features as its two outputs, and its last layer.

    Where no such layer is found, or the package onnx is missing, it is the graph as it is, and None.
    """
    try:
        import onnx
    except ImportError:
        return content, None
    model = onnx.load_from_string(content)
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    logits = graph.output[0].name
    while logits in maker and maker[logits].op_type in ONNX_PASSED:
        logits = maker[logits].input[0]
    constants = _constants(graph)
    found = _onnx_layer(maker.get(logits), maker, constants)
    if found is None:
        return content, None
    features, head = found
    kind = graph.output[0].type.tensor_type.elem_type
    outputs = [onnx.helper.make_tensor_value_info(name, kind, None) for name in (logits, features)]
    del graph.output[:]
    graph.output.extend(outputs)
    return model.SerializeToString(), head


def _constants(graph: Any) -> dict[str, Any]:
    """The tensors of a graph that no input changes, by name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            constants |= {node.output[0]: value} if value is not None else {}
    return constants


def _onnx_layer(node: Any, maker: dict[str, Any], constants: dict[str, Any]) -> tuple[str, Head] | None:
    """The input and the weights of a node that is a linear layer, alone or as a product and a sum."""
    bias = None
    if node is not None and node.op_type == "Add":
        products = [name for name in node.input if name in maker and maker[name].op_type == "MatMul"]
        biases = [name for name in node.input if name in constants]
        if len(products) != 1 or len(biases) != 1:
            return None
        node, bias = maker[products[0]], _tensor(constants[biases[0]]).flatten()
    if node is None or node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
        return None
    weight = _tensor(constants[node.input[1]])
    options = {a.name: (a.f if a.type == a.FLOAT else a.i) for a in node.attribute}
    if options.get("transA") or weight.ndim != 2:
        return None
    if node.op_type == "Gemm" and len(node.input) > 2:
        if node.input[2] not in constants:
            return None
        bias = options.get("beta", 1.0) * _tensor(constants[node.input[2]]).flatten()
    weight_CF = options.get("alpha", 1.0) * (weight if options.get("transB") else weight.T)
    bias_C = weight_CF.new_zeros(len(weight_CF)) if bias is None else bias.expand(len(weight_CF))
    return node.input[0], Head(weight_CF=weight_CF.contiguous(), bias_C=bias_C.contiguous())


def _tensor(constant: Any) -> Tensor:
    from onnx.numpy_helper import to_array

    return torch.from_numpy(to_array(constant).copy()).float()


class ProgramEnd(NamedTuple):
    """An exported program that returns logits and, where its last `head` is found, features; and the shape
    (B, 3, H, W) that it takes, whose dynamic sizes are no integers.
    """

    network: torch.fx.GraphModule
    shape: tuple[Any, ...]
    head: Head | None


def end_of_program(program: torch.export.ExportedProgram) -> ProgramEnd:
    """The end of an exported program, whose first output holds the logits, or their softmax."""
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    (output,) = module.graph.find_nodes(op="output")
    value = module.graph.find_nodes(op="placeholder")[0].meta["val"]
    results = output.args[0]
    logits: Any = results if isinstance(results, torch.fx.Node) else results[0]
    while logits.target in PROGRAM_PASSED:
        logits = logits.args[0]
    found = _program_layer(logits, module)
    module.graph.set_codegen(CodeGen())  # flat arguments and results in place of the program's own
    output.args = (logits if found is None else (logits, found[0]),)
    module.recompile()
    return ProgramEnd(module, tuple(value.shape), None if found is None else found[1])


def _program_layer(node: Any, module: torch.fx.GraphModule) -> tuple[Any, Head] | None:
    """The input and the weights of a node that is a linear layer."""
    if node.target == torch.ops.aten.linear.default:
        features, weight, *bias = node.args
    elif node.target == torch.ops.aten.addmm.default and node.args[2].target in TRANSPOSED:
        features, weight, bias = node.args[1], node.args[2].args[0], [node.args[0]]
    else:
        return None
    if any(one.op != "get_attr" for one in (weight, *bias)):
        return None
    weight_CF, *bias_C = (_attribute(module, one.target).detach().float().cpu() for one in (weight, *bias))
    bias_C = bias_C or [weight_CF.new_zeros(len(weight_CF))]
    return features, Head(weight_CF=weight_CF.clone(), bias_C=bias_C[0].clone())


def _attribute(module: torch.fx.GraphModule, target: str) -> Tensor:
    owner, _, name = target.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), name)
    return tensor
