from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ViTForImageClassification

from oodream.core.files import read_json
from oodream.models.external import ADAPTERS
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from tests.helpers.networks import VIT
from tests.helpers.protocols import SIZE, ByColour, evaluate, rows, save_classifier


def test_a_classifier_that_names_a_plug_in_runs_nothing(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier(tmp_path / "stranger", backbone("resnet8", 3))
    description = read_json(folder / "classifier.json")
    (folder / "classifier.json").write_text(json.dumps({**description, "loss": "os:system"}))
    assert evaluate(root, "--model", str(folder), "--out", str(tmp_path / "out")) == 2
    assert "names the plug-in 'os:system'" in capsys.readouterr().err


def test_a_classifier_whose_classes_are_in_another_order(root: Path, weights: Path, tmp_path: Path) -> None:
    network = backbone("resnet8", 3)
    network.load_state_dict(load_file(weights))
    order = [2, 0, 1]
    with torch.no_grad():
        network.head.weight.copy_(network.head.weight[order].clone())
        network.head.bias.copy_(network.head.bias[order].clone())
    ours = save_classifier(tmp_path / "ours", network, ("Blue", "red", "green"))
    assert evaluate(root, "--model", str(ours), "--out", str(tmp_path / "a")) == 0
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "b")) == 0
    key = ("mahalanobis", "mean", "far")
    assert rows(tmp_path / "a")[key].accuracy == rows(tmp_path / "b")[key].accuracy > 0.9
    assert rows(tmp_path / "a")[key].auroc == pytest.approx(rows(tmp_path / "b")[key].auroc)


def test_a_classifier_of_other_classes_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_classifier(tmp_path / "other", backbone("resnet8", 3), ("blue", "red", "white"))
    assert evaluate(root, "--model", str(other), "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "it does not know green. If it calls them otherwise, say so in the protocol's classes" in error
    assert evaluate(root, "--model", str(other), "--dry-run") == 2
    assert capsys.readouterr().err == error
    assert not (tmp_path / "out").exists()


def seeded() -> ByColour:
    torch.manual_seed(0)
    return ByColour()


class Failing:
    """A detector that cannot even be made."""

    def __init__(self) -> None:
        raise RuntimeError("no such thing")


def broken() -> nn.Module:
    raise KeyError("weights")


def test_a_size_that_a_network_does_not_take_is_said(root: Path, tmp_path: Path, capsys) -> None:
    program = torch.export.export(ByColour().eval(), (torch.rand(2, 3, SIZE, SIZE),))
    torch.export.save(program, tmp_path / "net.pt2")
    assert (
        evaluate(root, "--model", str(tmp_path / "net.pt2"), "--size", "20", "--out", str(tmp_path / "a"))
        == 2
    )
    assert "cannot be run on images of 20 x 20 pixels: " in capsys.readouterr().err


def test_a_networks_file_or_module_gets_pixels_as_the_user_says(root: Path, tmp_path: Path) -> None:
    """As the same network that normalises them itself."""

    class Itself(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = seeded()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network((x - 0.4) / 0.2)

    shapes = {"x": {0: torch.export.Dim.DYNAMIC}}
    files = {"plain": seeded(), "itself": Itself()}
    for name, network in files.items():
        noise = torch.rand(2, 3, SIZE, SIZE)
        program = torch.export.export(network.eval(), (noise,), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / f"{name}.pt2")
    said = ("--mean", "0.4", "--std", "0.2")
    measured = {
        "itself": (str(tmp_path / "itself.pt2"),),
        "file": (str(tmp_path / "plain.pt2"), *said),
        "module": (f"{__name__}:seeded", "--plugins", *said),
    }
    for name, words in measured.items():
        more = ("--out", str(tmp_path / name), "--detectors", "energy", "--fit", "30")
        assert evaluate(root, "--model", *words, *more) == 0
    itself, file, module = (rows(tmp_path / name) for name in measured)
    for key, row in itself.items():
        for other in (file, module):
            assert other[key].auroc == pytest.approx(row.auroc, abs=0.01)
            assert other[key].accuracy == row.accuracy
    facts = json.loads((tmp_path / "file" / "evaluation.json").read_text())
    assert (facts["mean"], facts["std"]) == ([0.4], [0.2])
    for name, unsaid in (("itself", True), ("file", False)):
        notes = " ".join(read_json(tmp_path / name / "evaluation.json")["notes"])
        assert "something is wrong" in notes
        assert ("less 0, 0, 0 over 1, 1, 1, for neither --mean nor --std was given" in notes) == unsaid


def test_a_networks_file_is_measured_by_its_path(root: Path, tmp_path: Path) -> None:
    shapes = {"x": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(ByColour().eval(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, file := tmp_path / "net.pt2")
    for name, model in (("a", str(file)), ("b", f"exported:{file}")):
        more = ("--out", str(tmp_path / name), "--detectors", "energy")
        assert evaluate(root, "--model", model, *more) == 0
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_run_folder_stands_for_its_first_regularized_classifier(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    baseline = save_classifier(run / "classifier" / "baseline-s0", backbone("resnet8", 3))
    (run / "run.json").write_text("{}")
    out = tmp_path / "out"
    more = ("--model", str(run), "--out", str(out), "--detectors", "energy")
    assert evaluate(root, *more) == 2
    message = capsys.readouterr().err
    assert "no regularized classifier yet. Finish it" in message
    assert f"name the folder of one of its classifiers: {baseline}." in message
    for seed in (0, 1):
        save_classifier(run / "classifier" / f"regularized-s{seed}", backbone("resnet8", 3))
    assert evaluate(root, *more) == 0
    model = json.loads((out / "evaluation.json").read_text())["model"]
    assert model["name"] == str(run / "classifier" / "regularized-s0")
    weights = load_file(run / "classifier" / "regularized-s0" / "model.safetensors")
    network = backbone("resnet8", 3)
    network.load_state_dict(weights)
    assert model["weights"] == Extractor(network).weights_hash


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "Give --model"),
        (("--model", "mine.nets:make"), "mine.nets:make is a module of yours, whose code would be run"),
        (("--model", f"{__name__}:seeded", "--plugins"), "does not say how its pixels are normalised"),
        (("--model", f"{__name__}:seeded", "--plugins", "--mean", "0"), "go together: give --std, too"),
        (("--model", f"{__name__}:seedy", "--plugins"), "'seedy'"),
        (("--model", f"{__name__}:broken", "--plugins"), ":broken': KeyError: 'weights' ("),
        (("--model", "resnet8"), "no published weights"),
        (("--model", "resnet9"), "Did you mean"),
        (("--model", "."), "holds no classifier"),
        (("--model", "resnet8", "--detectors", "enrgy"), "Did you mean 'energy'"),
        (
            ("--model", "resnet8", "--detectors", "energy", f"{__name__}:Failing"),
            "Failing', made with no option",
        ),
    ],
)
def test_networks_that_cannot_be_measured(
    root: Path,
    more: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(root, *more) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


class Foreign(torch.nn.Module):
    """As an adapted network of timm says what it was trained on."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.inner, self.body = backbone("resnet8", classes), torch.nn.Identity()
        self.head = self.inner.head
        self.body.pretrained_cfg = {"input_size": (3, size, size)}

    def forward(self, images: torch.Tensor) -> object:
        return self.inner(images)


def test_a_published_network_of_other_classes_gets_no_random_head(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ViTForImageClassification(VIT).save_pretrained(tmp_path / "vit")
    assert evaluate(root, "--model", f"hf:{tmp_path / 'vit'}", "--out", str(tmp_path / "out")) == 2
    assert "vit knows 5 classes and colours has 3." in capsys.readouterr().err


def test_published_weights_for_other_classes_or_sizes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    more = ("--model", "timm:foreign", "--detectors", "energy", "--out", str(out))
    monkeypatch.setitem(ADAPTERS, "timm", lambda *_: Foreign(1000, SIZE))
    assert evaluate(root, *more) == 2
    assert "knows 1000 classes and colours has 3" in capsys.readouterr().err
    monkeypatch.setitem(ADAPTERS, "timm", lambda *_: Foreign(3, 224))
    assert evaluate(root, *more) == 0
    assert "224 pixels wide and gets images 16 pixels wide" in capsys.readouterr().err
    assert "224 pixels wide" in (out / "results.md").read_text()
