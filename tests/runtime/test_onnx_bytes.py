"""A graph that somebody hands over is one file: none of its tensors is read from elsewhere."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from oodream.core.errors import StoreError
from oodream.models.serialized import Onnx
from oodream.runtime import Guard
from oodream.runtime.onnx_bytes import check_whole, check_whole_file
from tests.fuzz.small import description, graph

OUTSIDE = "values of its tensors lie in other files"


def test_a_whole_graph_passes_whatever_its_names_are(tmp_path):
    """A class may be called by the word that names another file's place."""
    text = description().replace("ship", "dislocation")
    content = graph(text, tmp_path / "guard.onnx")
    assert b"location" in content
    check_whole(content)
    check_whole_file(tmp_path / "guard.onnx")
    assert Guard.load(tmp_path).names == ("cat", "dog", "dislocation")


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_weights_in_another_file_are_refused(tmp_path, place):
    """Even beside the graph: nothing here writes such a file."""
    (tmp_path / "weights.bin").write_bytes(bytes(36))
    content = graph(description(), tmp_path / "guard.onnx", external=place)
    with pytest.raises(StoreError, match=OUTSIDE):
        Guard.load(tmp_path)
    with pytest.raises(ValueError, match=OUTSIDE):
        Onnx("guard.onnx", content)


def external(name: str) -> TensorProto:
    tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def inner_graph(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "inner", [], [], [tensor])


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["c"], value=external("w")),
        helper.make_node("If", ["c"], ["y"], then_branch=inner_graph(external("w"))),
        helper.make_node("Constant", [], ["c"], sparse_value=helper.make_sparse_tensor(
            external("w"), helper.make_tensor("i", TensorProto.INT64, [1], [0]), [4])),
    ],
    ids=["constant", "branch", "sparse"],
)  # fmt: skip
def test_tensors_are_found_wherever_a_graph_may_hold_them(node):
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    with pytest.raises(ValueError, match=OUTSIDE):
        check_whole(model.SerializeToString())
    function = helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 18)])
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    with pytest.raises(ValueError, match=OUTSIDE):
        check_whole(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"location\x0b", "no ONNX file|cut short"), (b"\x3a\xff\x7flocation", "cut short"), (b"", "is empty")],
)
def test_damaged_graphs(tmp_path, content, message):
    (tmp_path / "guard.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_whole_file(tmp_path / "guard.onnx")
