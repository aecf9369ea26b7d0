"""Exported guards: the graph gives the guard's answers from pixels of any size; wrong ones leave no file; the
card is true.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.errors import StoreError
from oodream.core.files import write_json
from oodream.core.registry import make, names
from oodream.core.results import write_rows
from oodream.core.types import Sizes
from oodream.data.builtin import digits
from oodream.data.images import ImageSet
from oodream.deploy.export import Exported, export, is_exported
from oodream.deploy.guard import Guard
from oodream.deploy.measured import Measurements
from oodream.deploy.onnx import TRACED, Deployed, ExportError, Rewritten, Square, compared, to_onnx
from oodream.detection.evaluate import evaluate
from oodream.runtime.pictures import square
from tests.helpers.begun import begin_run
from tests.helpers.guarded import SIZE, classifier, clothes, guard, save_run

ANSWERS = ["logits", "score", "unknown"]


def session(file):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def photos():
    """Pieces of two photographs, of many shapes."""
    g = np.random.default_rng(0)
    for photo in load_sample_images().images:
        for _ in range(4):
            h, w = g.integers(20, 200), g.integers(40, 300)
            top, left = g.integers(photo.shape[0] - h), g.integers(photo.shape[1] - w)
            yield np.ascontiguousarray(photo[top : top + h, left : left + w])


@pytest.fixture(scope="module")
def energy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "clothes"
    ood = [
        ImageSet(name="digits", group="far", images=digits(SIZE, 200)),
        ImageSet(name="twice", group="control", images=digits(SIZE, 50)),
    ]
    train, test = clothes()
    extractor = classifier().extractor()
    rows = evaluate(
        extractor, ["energy"], fit=train, test=test, ood=ood, resamples=20, classifier="regularized"
    ).rows
    worst = export(guard(), folder, Measurements.of_rows(rows), onnx=True).onnx
    return SimpleNamespace(folder=folder, rows=rows, worst=worst)


# Pixels


@pytest.mark.parametrize("size", [8, 12, 32, 61])
def test_pixels_are_equal_to_pillows(size):
    g, resize = np.random.default_rng(size), Square(size)
    for _ in range(40):
        h, w = g.integers(1, 160, 2).tolist()
        picture = g.integers(0, 256, (h, w, 3), dtype=np.uint8)
        expected = np.asarray(square(Image.fromarray(picture), size))
        found = resize(torch.from_numpy(picture).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        assert (found == expected).all(), (h, w)


def test_pixels_of_photographs_are_equal_however_tall():
    for photo in load_sample_images().images:
        for part in (photo, np.ascontiguousarray(photo[:, :90])):
            expected = np.asarray(square(Image.fromarray(part), 32))
            found = Square(32)(torch.from_numpy(part).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
            assert (found == expected).all()


# Answers


def test_the_graph_answers_as_the_guard_does(energy):
    run, answers = session(energy.folder / "guard.onnx"), set()
    known = [x.permute(1, 2, 0).numpy() for x in clothes()[1].batch(range(20))]
    for picture in (
        *known,
        *photos(),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.full((1, 1, 3), 255, np.uint8),
    ):
        logits, score, unknown = run.run(ANSWERS, {"images": picture.transpose(2, 0, 1)[None]})
        prediction = guard().predict(picture)
        assert score[0] == pytest.approx(prediction.score, abs=1e-4)
        assert guard().names[logits[0].argmax()] == prediction.likeliest
        assert bool(unknown[0]) == prediction.flagged
        answers.add(bool(unknown[0]))
    assert answers == {True, False}
    assert energy.worst < 1e-4


@pytest.mark.parametrize("n", [1, 2, 33])
def test_batches_of_any_length(energy, n):
    pictures = np.random.default_rng(n).integers(0, 256, (n, 30, 41, 3), dtype=np.uint8)
    logits, score, unknown = session(energy.folder / "guard.onnx").run(
        ANSWERS, {"images": pictures.transpose(0, 3, 1, 2)}
    )
    assert (logits.shape, score.shape, unknown.shape) == ((n, 4), (n,), (n,))
    assert (logits.dtype, score.dtype, unknown.dtype) == (np.float32, np.float64, bool)
    assert score == pytest.approx([v.score for v in guard().predict(pictures)], abs=1e-4)


def test_the_graph_says_what_it_is(energy):
    model = onnx.load(energy.folder / "guard.onnx")
    onnx.checker.check_model(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(metadata["names"])) == guard().names
    assert float(metadata["threshold"]) == guard().threshold
    assert metadata["guarantee"] == str(guard().guarantee)
    (taken,) = session(energy.folder / "guard.onnx").get_inputs()
    assert (taken.name, taken.type) == ("images", "tensor(uint8)")
    assert [isinstance(side, str) for side in taken.shape] == [True, False, True, True]


def clear(mine, pictures) -> tuple[np.ndarray, list[bool]]:
    """Which pictures do not lie at a threshold, as some held-out ones do, and which of these are flagged."""
    predictions = mine.predict(pictures)
    rows = np.array([abs(p.score - p.threshold) > 1e-4 for p in predictions])
    return rows, [p.flagged for p, row in zip(predictions, rows, strict=True) if row]


def test_the_threshold_moves_at_run_time(energy):
    run = session(energy.folder / "guard.onnx")
    (threshold,) = run.get_overridable_initializers()
    assert (threshold.name, threshold.shape, threshold.type) == ("threshold", [], "tensor(double)")
    pictures = clothes()[1].batch(range(300)).permute(0, 2, 3, 1).numpy()
    images = {"images": pictures.transpose(0, 3, 1, 2)}
    counts = []
    for alpha in (0.05, 0.2, 0.5):
        other = guard().at(alpha)
        _, _, unknown = run.run(ANSWERS, images | {"threshold": np.array(other.threshold)})
        rows, flagged = clear(other, pictures)
        assert unknown[rows].tolist() == flagged
        counts.append(int(unknown.sum()))
    assert counts[0] == int(run.run(ANSWERS, images)[2].sum()) < counts[1] < counts[2]


def test_a_graph_with_a_threshold_for_each_class(tmp_path):
    mine = guard(alpha=0.2, per_class=True)
    export(mine, tmp_path / "g", onnx=True)
    run = session(tmp_path / "g" / "guard.onnx")
    (threshold,) = run.get_overridable_initializers()
    assert threshold.shape == [4]
    assert "exceeds the threshold of the class it is taken for" in (tmp_path / "g" / "README.md").read_text()
    metadata = run.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["threshold"]) == mine.threshold_C.tolist()
    pictures = clothes()[1].batch(range(300)).permute(0, 2, 3, 1).numpy()
    images = {"images": pictures.transpose(0, 3, 1, 2)}
    rows, flagged = clear(mine, pictures)
    unknown = run.run(ANSWERS, images)[2]
    assert unknown[rows].tolist() == flagged
    assert unknown.tolist() != [p.flagged for p in guard(alpha=0.2).predict(pictures)]
    other = mine.at(0.5)
    rows, flagged = clear(other, pictures)
    assert run.run(ANSWERS, images | {"threshold": other.threshold_C})[2][rows].tolist() == flagged


@pytest.mark.parametrize("detector", ["knn", "mahalanobis"])
def test_detectors_with_a_state(detector, tmp_path):
    mine = guard(detector)
    low, high = np.quantile(mine.held_out.score_N, [0.05, 0.95])
    assert to_onnx(mine, tmp_path / "g.onnx") < 1e-3 * (high - low)
    picture = next(photos())
    _, score, unknown = session(tmp_path / "g.onnx").run(
        ANSWERS, {"images": picture.transpose(2, 0, 1)[None]}
    )
    prediction = mine.predict(picture)
    assert score[0] == pytest.approx(prediction.score, rel=1e-4)
    assert unknown[0] == prediction.flagged


@pytest.mark.slow
@pytest.mark.parametrize("detector", names("detectors"))
def test_every_detector_is_traced_or_says_why_not(detector, tmp_path):
    few = [images.subset(torch.arange(400)) for images in clothes()]
    weighted = make("losses", "energy_logistic", weighted=True)
    weighted.build(Sizes(features=128, classes=4))
    mine = Guard.calibrate(replace(classifier(), loss=weighted), detector, *few, outliers=digits(SIZE, 100))
    if detector in TRACED:
        to_onnx(mine, tmp_path / "g.onnx")
    else:
        with pytest.raises(
            ExportError, match=f"{detector} .*Detectors that can be part of a graph: ash, dice"
        ):
            to_onnx(mine, tmp_path / "g.onnx")


# What is refused


def test_a_graph_with_other_answers_is_not_kept(tmp_path, monkeypatch):
    def coarse(self, images_B3HW):
        """The nearest pixel in place of the kernel."""
        return torch.nn.functional.interpolate(images_B3HW.float(), (self.size, self.size)).double()

    monkeypatch.setattr(Square, "forward", coarse)
    message = r"another answer for a picture of \d+ x \d+ pixels \(score .*, and not .*not kept"
    with pytest.raises(ExportError, match=message):
        to_onnx(guard(), tmp_path / "g.onnx")
    with pytest.raises(ExportError, match=message):
        export(guard(), tmp_path / "g", onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_a_class_called_unknown_is_compared_by_its_flag(energy):
    names = ("unknown", *classifier().names[1:])
    named = replace(guard(), classifier=replace(classifier(), names=names))
    assert compared(named, energy.folder / "guard.onnx") == energy.worst


def test_a_graph_is_compared_in_all_it_says(energy, tmp_path):
    file = energy.folder / "guard.onnx"
    assert compared(guard(), file) == energy.worst
    with pytest.raises(ExportError, match="another answer"):
        compared(guard("knn"), file)
    with pytest.raises(ExportError, match="another answer"):
        compared(guard(alpha=0.9), file)  # the same scores, another threshold
    with pytest.raises(ExportError, match=r"graph is not kept: .* cannot be run, or is damaged"):
        compared(guard(), energy.folder / "config.json")


def test_a_detector_that_needs_gradients_cannot_be_a_graph(tmp_path):
    few = [images.subset(torch.arange(100)) for images in clothes()]
    mine = Guard.calibrate(classifier(), "odin", *few)
    with pytest.raises(
        ExportError,
        match=r"odin needs more .* than one forward pass\. Detectors that can be .*: ash, dice, energy",
    ):
        export(mine, tmp_path / "g", onnx=True)
    assert list(tmp_path.iterdir()) == []
    assert export(mine, tmp_path / "g") == Exported()
    assert Guard.load(tmp_path / "g").threshold == mine.threshold


def test_what_cannot_be_traced_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Deployed, "forward", lambda self, x: self.square(x) if x.sum() > 3 else x)
    with pytest.raises(ExportError, match="This network with energy cannot be traced into a graph"):
        to_onnx(guard(), tmp_path / "g.onnx")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_missing_packages_name_the_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"needs {package}.*pip install '\.\[onnx\]'"):
        to_onnx(guard(), tmp_path / "g.onnx")


def test_what_lies_in_the_folder_stays(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="holds something already"):
        export(guard(), tmp_path)
    with pytest.raises(StoreError, match=r"thesis\.tex is a file, and no folder"):
        export(guard(), tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    export(guard(), tmp_path / "empty")


# The folder


def test_what_is_exported_already_is_known_by_what_would_be_written(tmp_path):
    export(guard(), tmp_path / "g", license="cc0-1.0")
    card = tmp_path / "g" / "README.md"
    card.write_text(card.read_text() + "A word of mine.\n")
    there = partial(is_exported, folder=tmp_path / "g")
    assert there(guard(), license="cc0-1.0")
    assert not there(guard())
    assert not there(guard(), license="cc0-1.0", onnx=True)
    assert not there(guard().at(0.2), license="cc0-1.0")
    (tmp_path / "g" / "guard.safetensors").unlink()
    assert not there(guard(), license="cc0-1.0")


def test_the_folder_is_a_guard_and_nothing_else(energy):
    again = Guard.load(energy.folder)
    assert again.predict(clothes()[1]) == guard().predict(clothes()[1])
    assert {p.name for p in energy.folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "loss.safetensors", "guard.safetensors",
        "guard.onnx",
    }  # fmt: skip
    metadata = json.loads((energy.folder / "config.json").read_text())
    assert metadata["classifier"]["names"] == list(guard().names)
    assert (metadata["detector"]["name"], metadata["threshold"]) == ("energy", guard().threshold)
    guarantee = {"kind": "tolerance", "alpha": 0.05, "confidence": 0.95, "n": 1000, "too_few": None}
    assert metadata["guarantee"] == guarantee
    assert metadata["class_thresholds"] is None


def test_the_card(energy):
    _, front, text = (energy.folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("oodream", "image-classification")
    results = metadata["model-index"][0]["results"]
    (digit_row,) = [row for row in energy.rows if row.dataset == "digits"]
    assert [result["dataset"]["type"] for result in results] == ["known", "digits"]
    assert {m["type"]: m["value"] for result in results for m in result["metrics"]} == {
        "accuracy": round(digit_row.accuracy, 4), "auroc": round(digit_row.auroc, 4),
        "fpr95": round(digit_row.fpr95_id, 4),
    }  # fmt: skip
    assert str(guard().guarantee) in text
    assert f"| digits | far | {digit_row.auroc:.1%} |" in text
    assert "twice" not in text
    for file in energy.folder.iterdir():
        assert file.name == "README.md" or f"| `{file.name}` |" in text
    for heading in ("What it is for", "How the threshold is guaranteed", "Limits", "Measured"):
        assert f"## {heading}" in text


def test_the_cards_snippets_run(energy, tmp_path, monkeypatch):
    (tmp_path / "clothes").symlink_to(energy.folder)
    (tmp_path / "guard.onnx").symlink_to(energy.folder / "guard.onnx")
    Image.fromarray(next(photos())).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    snippets = [
        part.split("```")[0] for part in (energy.folder / "README.md").read_text().split("```python\n")[1:]
    ]
    first, second, third = {}, {}, {}
    for snippet, variables in zip(snippets, (first, second, third), strict=True):
        exec(snippet, variables)
    assert second["prediction"].score == pytest.approx(first["prediction"].score, abs=1e-4)
    assert second["prediction"].answer == first["prediction"].answer
    assert third["score"][0] == pytest.approx(first["prediction"].score, abs=1e-4)


def test_a_card_without_measurements(tmp_path):
    export(guard(), tmp_path / "g")
    text = (tmp_path / "g" / "README.md").read_text()
    assert "No measurement of this guard on unknown pictures stands here." in text
    assert "neither the\nnetwork nor the detector has learned from." in text, "as `Guard.calibrate` has it"
    for contradiction in ("measured,\nbelow", "sets above", "Accuracy on", "plugins"):
        assert contradiction not in text
    assert "model-index" not in text
    assert "onnx" not in text


def test_the_tracer_decides_nothing_by_a_tensors_values():
    """Tensors are as true within `Rewritten` as without: no check is waved through."""
    with Rewritten():
        assert not torch.zeros(1)
        assert not torch.tensor([torch.nan]).isfinite().all()


def test_the_command(energy, tmp_path, capsys):
    run = save_run(begin_run(tmp_path / "run", Config()).folder.path)
    baseline = [replace(row, classifier="baseline", dataset="letters") for row in energy.rows]
    write_rows(run / "results.jsonl", [*baseline, *energy.rows])
    for stage, inputs in (("guard", {"detector": "energy"}), ("scores", {})):
        write_json(run / stage / "stage.json", {"inputs": inputs, "seconds": 1.0, "summary": {}})
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert str(guard().guarantee) in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| digits |" in card
    assert "letters" not in card
    assert Guard.load(tmp_path / "out").threshold == guard().threshold
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 0
    assert f"there already, {guard().guarantee}" in capsys.readouterr().out
    write_rows(run / "results.jsonl", [*baseline, *(replace(row, auroc=0.5) for row in energy.rows)])
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "as it was before" in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    assert main(["export", str(run), "--out", str(tmp_path / "thesis")]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "new")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_is_rewritten_for_the_tracer_means_the_same():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(7, 5, generator=g).double(), torch.randn(4, 5, generator=g).double()
    plain = torch.cdist(a, b), a.kthvalue(2, dim=1).values, torch.nn.functional.softplus(30 * a)
    with Rewritten():
        other = torch.cdist(a, b), a.kthvalue(2, dim=1).values, torch.nn.functional.softplus(30 * a)
    for x, y in zip(plain, other, strict=True):
        torch.testing.assert_close(x, y)
