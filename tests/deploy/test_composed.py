"""A guard on a network in an ONNX file becomes one graph, whatever form that file has."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from onnx import TensorProto

from oodream.deploy.guard import Guard
from oodream.deploy.onnx import ExportError, to_onnx
from oodream.models.opened import Center
from oodream.models.serialized import Exported, Onnx, TorchScript
from oodream.runtime import Guard as GraphGuard
from tests.helpers.guarded import SIZE, Logits, classifier, clothes, save_logits
from tests.helpers.onnx_files import product_and_sum, save_logits_as_onnx


def guard_on(network: torch.nn.Module, detector: str) -> Guard:
    train, test = clothes()
    fit = train.subset(torch.arange(500))
    return Guard.calibrate(replace(classifier(), network=network.eval()), detector, fit, test)


def opened(file) -> Onnx:
    return Onnx(file.name, file.read_bytes())


def check_graph(guard: Guard, file) -> None:
    """The graph needs no operator but ONNX's own, and answers as the guard."""
    to_onnx(guard, file)
    assert {one.domain for one in onnx.load(file).opset_import} <= {"", "ai.onnx"}
    pictures = clothes()[1].batch(range(60)).permute(0, 2, 3, 1).numpy()
    graph = GraphGuard.load(file)
    for one, other in zip(graph.predict(pictures), guard.predict(pictures), strict=True):
        assert (one.answer, one.likeliest) == (other.answer, other.likeliest)
        assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("detector", ["energy", "knn"])
def test_a_network_with_features_and_its_classes_in_another_order(tmp_path, detector):
    network = opened(save_logits_as_onnx(tmp_path / "n.onnx"))
    network.choose(torch.tensor([Logits.order.index(i) for i in range(4)]))
    check_graph(guard_on(network, detector), tmp_path / "guard.onnx")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])
@pytest.mark.filterwarnings("ignore:.*look less known")
def test_pixels_reach_the_network_as_it_wants_them(tmp_path, dtype, layout):
    """In the middle of the guard's square, and of another version of ONNX than the exporter writes."""
    network = opened(product_and_sum(tmp_path / "n.onnx", SIZE - 4, dtype, layout))
    check_graph(guard_on(Center(network, SIZE - 4), "energy"), tmp_path / "guard.onnx")


@pytest.mark.filterwarnings("ignore:.*look less known")
def test_a_network_for_batches_of_one_size_is_refused(tmp_path):
    network = opened(product_and_sum(tmp_path / "n.onnx", SIZE, batch=1))
    with pytest.raises(ExportError, match=r"n\.onnx is made for batches of 1, and a guard's graph takes any"):
        to_onnx(guard_on(network, "energy"), tmp_path / "guard.onnx")
    assert not (tmp_path / "guard.onnx").exists()


@pytest.mark.filterwarnings("error:.*LeafSpec:FutureWarning")
def test_a_program_of_torch_export_becomes_a_graph_without_a_word(tmp_path):
    """PyTorch warns of its own classes where such a program is copied."""
    network = Exported("n.pt2", save_logits(tmp_path / "n.pt2").read_bytes())
    check_graph(guard_on(network, "energy"), tmp_path / "guard.onnx")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_is_refused(tmp_path):
    torch.jit.trace(Logits().eval(), torch.rand(2, 3, SIZE, SIZE)).save(tmp_path / "n.ts")
    network = TorchScript("n.ts", (tmp_path / "n.ts").read_bytes())
    with pytest.raises(ExportError, match=r"n\.ts is a TorchScript file, which cannot be part of a graph"):
        to_onnx(guard_on(network, "energy"), tmp_path / "guard.onnx")
