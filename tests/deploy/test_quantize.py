"""The graph in 8-bit integers has a threshold of its own scores, and what it says that it costs is true."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from oodream.cli.main import main
from oodream.core.types import Output
from oodream.data.builtin import digits
from oodream.deploy.export import export
from oodream.deploy.guard import Guard as TorchGuard
from oodream.deploy.onnx import ExportError, to_onnx
from oodream.deploy.quantize import INT8_FILE, Int8Images, quantize
from oodream.runtime import Guard
from oodream.runtime.calibration import tolerance
from tests.helpers.exported import exported
from tests.helpers.guarded import SIZE, classifier, clothes, guard


@pytest.fixture(scope="module")
def graphs() -> tuple[Guard, Guard]:
    """In floating point and in integers."""
    folder = exported()[0]
    return Guard.load(folder), Guard.load(folder / INT8_FILE)


def pixels(images) -> np.ndarray:
    return images.batch(range(len(images))).permute(0, 2, 3, 1).numpy()


def test_the_network_is_in_integers_and_the_rest_is_not():
    folder, said = exported()
    model = onnx.load(folder / INT8_FILE)
    kinds = [node.op_type for node in model.graph.node]
    assert said.int8.layers == kinds.count("Conv") == 9
    assert kinds.count("DequantizeLinear") > 2 * 9
    made_by = {out: node.op_type for node in model.graph.node for out in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert {made_by[name] for name in node.input[:2]} == {"DequantizeLinear"}
        if node.op_type in ("Gemm", "MatMul"):
            assert "DequantizeLinear" not in {made_by.get(name) for name in node.input[1:]}
    assert (folder / INT8_FILE).stat().st_size < 0.5 * (folder / "guard.onnx").stat().st_size


def test_weights_are_by_channel_and_have_seven_bits():
    graph = onnx.load(exported()[0] / INT8_FILE).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim == 4]
    assert len(weights) == 9
    assert all(np.abs(array.astype(int)).max() <= 64 for array in weights)
    scales = [tensors[node.input[1]] for node in graph.node if node.op_type == "DequantizeLinear"]
    assert {len(scale) for scale in scales if scale.ndim} >= {len(array) for array in weights}


def test_the_threshold_is_of_its_own_scores(graphs):
    whole, small = graphs
    score_N = small.scores(pixels(clothes()[1]))
    assert small.threshold == tolerance(score_N, 0.05, 0.95) != whole.threshold
    assert small.guarantee == whole.guarantee == exported()[1].int8.guarantee
    assert small.held_out.score_N.tolist() == sorted(score_N.tolist())
    model = onnx.load(exported()[0] / INT8_FILE)
    assert float({p.key: p.value for p in model.metadata_props}["threshold"]) == small.threshold
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exported()[0] / INT8_FILE, options)
    images = clothes()[1].batch(range(1000)).numpy()
    score, unknown = session.run(["score", "unknown"], {"images": images})
    assert (unknown == (score > small.threshold)).all()
    assert 0.02 < unknown.mean() <= 0.05


def test_what_it_costs_is_what_is_measured(graphs):
    said, (_, test) = exported()[1].int8, clothes()
    known, unknown = pixels(test), pixels(digits(SIZE, 200))
    accuracy, auroc = said.changes
    assert (accuracy.measure, accuracy.n) == ("accuracy on known images", 1000)
    assert (auroc.measure, auroc.n) == ("AUROC, digits (far)", 200)
    for side, one in zip(("before", "after"), graphs, strict=True):
        named = [one.names.index(p.likeliest) for p in one.predict(known)]
        assert getattr(accuracy, side) == np.mean(named == test.labels.numpy())
        scores = np.concatenate([one.scores(known), one.scores(unknown)])
        assert getattr(auroc, side) == pytest.approx(roc_auc_score(np.arange(1200) >= 1000, scores))
    assert max(abs(c.after - c.before) for c in said.changes) < 0.01
    answers = [[p.answer for p in one.predict(known)] for one in graphs]
    assert said.same == np.mean([a == b for a, b in zip(*answers, strict=True)]) > 0.9


def test_the_card_says_what_it_costs():
    folder, said = exported()
    card = (folder / "README.md").read_text(encoding="utf-8")
    section = card.split("## In 8-bit integers")[1].split("##")[0]
    accuracy, auroc = said.int8.changes
    for change in (accuracy, auroc):
        assert f"| {change.measure} | {change.n:,} | {change.before:.2%} | {change.after:.2%} |" in section
    assert f"{said.int8.guarantee}" in section
    assert f"does on {said.int8.same:.1%} of the held-out images" in section
    assert f"| `{INT8_FILE}` |" in card
    export(guard(), folder.parent / "plain", onnx=True)
    assert "8-bit" not in (folder.parent / "plain" / "README.md").read_text()


def test_held_out_images_have_no_part_in_the_quantisation(tmp_path):
    folder, (train, test) = exported()[0], clothes()
    few = test.subset(torch.arange(400))
    quantize(folder / "guard.onnx", tmp_path / "a.onnx", Int8Images(train=train, held_out=few))
    whole = Guard.load(folder / INT8_FILE)
    part = Guard.load(tmp_path / "a.onnx")
    assert (part.scores(pixels(few)) == whole.scores(pixels(few))).all()
    assert part.guarantee.n == 400


def test_a_threshold_for_each_class(tmp_path):
    train, test = clothes()
    mine = guard(alpha=0.1, per_class=True)
    said = export(mine, tmp_path / "g", int8=Int8Images(train=train, held_out=test)).int8
    small = Guard.load(tmp_path / "g" / INT8_FILE)
    assert said.guarantee == small.guarantee
    assert small.per_class
    assert len(set(small.threshold_C.tolist())) == 4
    session = onnxruntime.InferenceSession(tmp_path / "g" / INT8_FILE)
    unknown = session.run(["unknown"], {"images": test.batch(range(300)).numpy()})[0]
    flagged = [p.flagged for p in small.predict(pixels(test)[:300])]
    assert unknown.tolist() == flagged


def test_without_true_labels_no_accuracy_is_told(tmp_path):
    train, test = clothes()
    mine = guard(labelled=False)
    to_onnx(mine, tmp_path / "g.onnx")
    said = quantize(tmp_path / "g.onnx", tmp_path / "q.onnx", Int8Images(train=train, held_out=test))
    assert said.changes == ()
    assert Guard.load(tmp_path / "q.onnx").held_out.standing is None


def test_logging_is_as_before():
    assert logging.getLogger().level == logging.WARNING


class Flat(nn.Module):
    """A network whose only layer is its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images_B3HW):
        z_BF = images_B3HW.float().mean((2, 3)) / 255
        return Output(logits_BC=self.head(z_BF), z_BF=z_BF)


@pytest.mark.filterwarnings("ignore:.*upside down")
def test_where_there_is_nothing_to_quantise_nothing_is_written(tmp_path):
    train, test = clothes()
    flat = replace(classifier(), network=Flat().eval())
    mine = TorchGuard.calibrate(flat, "energy", train, test)
    with pytest.raises(ExportError, match="no convolution or matrix product to put into 8-bit integers"):
        export(mine, tmp_path / "g", int8=Int8Images(train=train, held_out=test))
    assert list(tmp_path.iterdir()) == []


def test_too_few_held_out_images(tmp_path):
    train, test = clothes()
    with pytest.raises(ValueError, match="takes 59 held-out scores, and there are 50"):
        export(guard(), tmp_path / "g", int8=Int8Images(train=train, held_out=test.subset(torch.arange(50))))
    assert list(tmp_path.iterdir()) == []


def test_the_command_needs_the_guards_images(tmp_path, capsys):
    assert main(["export", str(exported()[0]), "--out", str(tmp_path / "g"), "--int8"]) == 2
    assert "--int8 needs the images that a guard was made of" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()
