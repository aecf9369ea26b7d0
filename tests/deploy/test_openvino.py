"""A guard in OpenVINO's format answers as with PyTorch; a graph with other answers is not kept."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from oodream.core.errors import StoreError
from oodream.deploy.export import export
from oodream.deploy.onnx import ExportError, to_onnx
from oodream.deploy.openvino import VINO_FILES, to_openvino
from oodream.runtime import Guard
from tests.helpers.guarded import clothes, guard

pytest.importorskip("openvino")


CLOSE = 5e-4  # of the spread of scores, in single precision


def pixels(n: int) -> np.ndarray:
    """Known images whose scores are no held-out ones."""
    return clothes()[0].batch(range(n)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("detector", ["energy", "mahalanobis", "knn"])
def test_it_answers_as_the_guard_does(detector, tmp_path):
    mine = guard(detector)
    said = export(mine, tmp_path / "g", openvino=True)
    (tmp_path / "g" / "guard.onnx").unlink()  # so that the folder's graph is OpenVINO's
    again = Guard.load(tmp_path / "g", threads=1)
    spread = np.ptp(mine.held_out.score_N)
    assert said.openvino < CLOSE * spread
    assert (again.threshold, again.guarantee, again.names) == (mine.threshold, mine.guarantee, mine.names)
    for one, expected in zip(again.predict(pixels(100)), mine.predict(pixels(100)), strict=True):
        assert (one.answer, one.likeliest) == (expected.answer, expected.likeliest)
        assert one.score == pytest.approx(expected.score, abs=CLOSE * spread)
        assert one.known == pytest.approx(expected.known, abs=1e-4)
    assert again.at(0.3).threshold == mine.at(0.3).threshold
    card = (tmp_path / "g" / "README.md").read_text()
    assert all(f"| `{name}` |" in card for name in VINO_FILES)


def test_a_threshold_for_each_class(tmp_path):
    mine = guard(alpha=0.1, per_class=True)
    export(mine, tmp_path / "g", openvino=True)
    again = Guard.load(tmp_path / "g" / "guard.xml")
    assert [p.threshold for p in again.predict(pixels(40))] == [p.threshold for p in mine.predict(pixels(40))]


def test_a_graph_with_other_answers_is_not_kept(tmp_path):
    to_onnx(guard("knn"), tmp_path / "g.onnx")
    with pytest.raises(ExportError, match="another answer for a picture"):
        to_openvino(guard(), tmp_path / "g.onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


def test_a_torn_file(tmp_path):
    (tmp_path / "guard.xml").write_text("<net")
    with pytest.raises(StoreError, match=r"guard\.xml cannot be run, or is damaged"):
        Guard.load(tmp_path)


def test_the_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r"needs openvino.*pip install '\.\[openvino\]'"):
        export(guard(), tmp_path / "g", openvino=True)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_of_one_is_that_of_many(tmp_path):
    export(guard(), tmp_path / "g", openvino=True)
    again = Guard.load(tmp_path / "g" / "guard.xml")
    alone = torch.tensor([again.scores(picture[None])[0] for picture in pixels(5)])
    assert alone.numpy() == pytest.approx(again.scores(pixels(5)), abs=1e-5)
