"""Disagreements of two classifiers, on scores made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodream.config import Config
from oodream.core.errors import StoreError
from oodream.core.tensors import save_tensors
from oodream.run.artifacts import Run
from oodream.run.disagree import Disagreement, Side, disagreements
from tests.helpers.begun import begin_run

KNOWN = torch.arange(20.0).double()  # 95 % are accepted up to 18


def measured(folder: Path, scores: dict[str, torch.Tensor], test: str = "t", **sets: str) -> Side:
    """A run with a classifier's scores of its test images and of unknown sets (name -> hash)."""
    run = begin_run(folder, Config(data="/nowhere"))
    save_tensors(run.layout.scores("regularized", 0, "energy"), scores)
    facts = {name: ["near", fingerprint] for name, fingerprint in sets.items()}
    run.folder.finish("scores", {"sets": facts}, 1, {})
    run.folder.finish("guard", {"test": test}, 1, {})
    return Side(run=Run.open(folder), kind="regularized", seed=0, detector="energy")


def rows(part) -> list[int]:
    return [one.row for one in part]


@pytest.fixture
def result(tmp_path) -> dict[str, Disagreement]:
    unknown = torch.tensor([30.0, 0.0, 30.0, 0.0, 12.0]).double()
    other = torch.tensor([30.0, 0.0, 0.0, 30.0, 300.0]).double()
    first = measured(tmp_path / "a", {"id": KNOWN, "x": unknown, "y": unknown + 1}, x="1", y="1")
    second = measured(tmp_path / "b", {"id": 10 * KNOWN.flip(0), "x": 10 * other, "y": other}, x="1", y="2")
    return {one.name: one for one in disagreements(first, second)}


def test_each_is_asked_at_a_threshold_of_its_own(result):
    known, unknown = result["id"], result["x"]
    assert (rows(known.only_first), rows(known.only_second)) == ([19], [0]), "each flags its highest one"
    assert (rows(unknown.only_first), rows(unknown.only_second)) == ([2], [3, 4])
    assert (known.both, known.neither, known.n) == (0, 18, 20)
    assert (unknown.both, unknown.neither, unknown.n) == (1, 1, 5)


def test_the_largest_difference_comes_first(result):
    first, second = result["x"].only_second
    assert (first.p_first, first.p_second) == (21 / 21, 1 / 21)
    assert (second.p_first, second.p_second) == (9 / 21, 1 / 21)


def test_only_sets_of_the_same_pictures_are_compared(result):
    assert list(result) == ["id", "x"]


def test_other_known_images_are_refused(tmp_path):
    first, second = (measured(tmp_path / name, {"id": KNOWN}, test=name) for name in ("a", "b"))
    with pytest.raises(ValueError, match="different known images"):
        disagreements(first, second)


def test_more_known_images_accepted_move_both_thresholds(tmp_path):
    scores = {"id": KNOWN, "x": torch.tensor([9.5, 10.5]).double()}
    first = measured(tmp_path / "a", scores, x="1")
    second = measured(tmp_path / "b", {**scores, "x": torch.tensor([10.5, 10.5]).double()}, x="1")
    assert rows(disagreements(first, second, accepted=0.5)[1].only_second) == []
    assert rows(disagreements(first, second, accepted=0.525)[1].only_second) == [0]


def test_what_is_not_measured_yet_says_what_to_do(tmp_path):
    run = begin_run(tmp_path / "a", Config(data="/nowhere"))
    side = Side(run=run, kind="baseline", seed=0, detector="energy")
    with pytest.raises(StoreError, match="not been measured yet"):
        disagreements(side, side)
