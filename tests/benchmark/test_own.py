"""A user's images in the place of a protocol's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from oodream.benchmark.own import OwnImages
from oodream.cli.main import main
from oodream.config import Config
from oodream.core.results import row_from_json
from oodream.data.folders import load_folder, load_ood
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from oodream.run.artifacts import Run
from tests.helpers.protocols import ByColour, picture, save, save_classifier
from tests.helpers.runs import plain


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """Unknown pictures."""
    folder = tmp_path_factory.mktemp("own") / "elsewhere"
    for i in range(9):
        save(picture(i % 5, i), folder / f"{i}.png")
    return folder


def measured(out: Path, *args: str) -> dict[tuple[str, str], object]:
    """The rows of `oodream evaluate` by set and group."""
    few = ("--detectors", "energy", "--max-images", "40", "--resamples", "0")
    assert main(["evaluate", *args, *few, "--out", str(out)]) == 0
    rows = map(row_from_json, (out / "results.jsonl").read_text().splitlines())
    return {(row.dataset, row.group): row for row in rows}


def test_a_run_is_measured_on_its_own_test_images_and_new_unknown_ones(finished, shapes, elsewhere, tmp_path):
    """As sklearn does, by the scores of the same classifier."""
    rows = measured(tmp_path, "--data", str(shapes), "--ood", f"near={elsewhere}", "--model", str(finished))
    run = Run.open(finished)
    extractor = Extractor(run.classifier().network)
    known, unknown = (
        -extractor(images).logits_BC.logsumexp(1)
        for images in (run.inputs.test, load_ood(elsewhere, run.config.size))
    )
    truth = [0] * len(known) + [1] * len(unknown)
    row = rows["elsewhere", "near"]
    assert row.n_id == len(run.inputs.test)
    assert row.auroc == pytest.approx(roc_auc_score(truth, torch.cat([known, unknown])))
    assert {name for name, group in rows if group == "far"} >= {"digits", "noise", "mean"}
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert facts["sets"]["elsewhere"] == {
        "group": "near", "place": str(elsewhere), "list_sha256": "", "images": 9,
    }  # fmt: skip


def test_a_runs_classifier_has_the_runs_images(finished, elsewhere, tmp_path):
    """Its own, but for what is given in their place."""
    by_run, by_name = (
        measured(tmp_path / name, "--model", str(model), "--ood", f"near={elsewhere}")
        for name, model in (("run", finished), ("one", finished / "classifier" / "regularized-s0"))
    )
    assert [key for key in by_run if key[1] == "near"] == [("elsewhere", "near"), ("mean", "near")]
    assert {key: row.auroc for key, row in by_run.items()} == {key: row.auroc for key, row in by_name.items()}
    run = Run.open(finished)
    theirs = {
        r.dataset: r for r in run.rows() if (r.classifier, r.detector, r.seed) == ("regularized", "energy", 0)
    }
    assert by_run["digits", "far"].n_id == theirs["digits"].n_id == len(run.inputs.test)
    assert by_run["digits", "far"].n_ood == theirs["digits"].n_ood
    assert by_run["digits", "far"].auroc == pytest.approx(theirs["digits"].auroc)


def test_unknown_classes_and_shifted_folders_are_measured(shapes, tmp_path):
    two = save_classifier(
        tmp_path / "two", backbone("resnet8", 2), sorted(p.name for p in shapes.iterdir())[:2]
    )
    last = sorted(p.name for p in shapes.iterdir())[2]
    shifted = Path(shutil.copytree(shapes, tmp_path / "shifted"))
    args = ("--data", str(shapes), "--unknown", last, "--shifted", str(shifted), "--model", str(two))
    rows = measured(tmp_path / "out", *args, "--full-spectrum")
    test = load_folder(shapes, 16, unknown=(last,))[1]
    assert rows["unknown", "near"].n_id == len(test)
    assert rows["unknown", "near"].n_ood == 4
    assert (tmp_path / "out" / "full_spectrum.jsonl").is_file()


def test_a_networks_size_is_its_files_or_said(shapes, tmp_path, capsys):
    fixed = torch.export.export(ByColour().eval(), (torch.rand(2, 3, 24, 24),))
    torch.export.save(fixed, tmp_path / "fixed.pt2")
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    any_size = torch.export.export(
        ByColour().eval(), (torch.rand(2, 3, 24, 24),), dynamic_shapes={"x": sizes}
    )
    torch.export.save(any_size, tmp_path / "any.pt2")
    measured(tmp_path / "a", "--data", str(shapes), "--model", str(tmp_path / "fixed.pt2"))
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["size"] == 24
    args = [
        "evaluate",
        "--data",
        str(shapes),
        "--model",
        str(tmp_path / "any.pt2"),
        "--out",
        str(tmp_path / "b"),
    ]
    assert main(args) == 2
    assert "does not say how large its images are. Give --size" in plain(capsys.readouterr().err)
    assert (
        main([*args, "--size", "16", "--detectors", "energy", "--max-images", "20", "--resamples", "0"]) == 0
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--model", "resnet8"), "Which images? Give --protocol NAME"),
        (
            ("--protocol", "embedded", "--data", "x"),
            "A protocol has its own images: leave --data, or --protocol",
        ),
        (("--protocol", "embedded", "--ood", "near=x"), "A protocol has its own images: leave --ood, or"),
        (("--data", "nowhere"), "nowhere"),
        (("--data", "{shapes}", "--ood", "nowhere"), "nowhere is not a folder"),
        (("--data", "{shapes}", "--unknown", "pug"), "--unknown names 'pug', which is no class"),
        (("--data", "{shapes}", "--tune", "val"), "has no set of the group val and val-ood"),
        (("--data", "{shapes}", "--full-spectrum"), "has no set of the group shift"),
    ],
)
def test_images_that_cannot_be_measured_on(args, said, shapes, finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [word.format(shapes=shapes) for word in args]
    model = [] if "--model" in words else ["--model", str(finished)]
    assert main(["evaluate", *words, *model, "--out", "out"]) == 2
    assert said in plain(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_an_unknown_folder_may_be_called_as_the_known_images(finished, shapes, elsewhere, tmp_path):
    unknown = Path(shutil.copytree(elsewhere, tmp_path / "test"))
    rows = measured(tmp_path / "out", "--data", str(shapes), "--ood", str(unknown), "--model", str(finished))
    assert rows["test", "far"].n_ood == 9
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text())["sets"]
    assert (facts["test"]["place"], facts["ID/test"]["place"]) == (str(unknown), str(shapes))


def test_what_there_is_can_be_looked_at_first(shapes, elsewhere, capsys):
    assert main(["evaluate", "--data", str(shapes), "--ood", f"near={elsewhere}", "--dry-run"]) == 0
    said = plain(capsys.readouterr().out)
    assert f"shapes: The images of {shapes}" in said
    assert f"elsewhere (near): {elsewhere}" in said
    assert "Nothing is missing." in said


@pytest.mark.parametrize("data", ["fashion", "doodles"])
def test_a_data_set_by_name_has_its_own_near_set(data):
    own = OwnImages(Config(data=data))
    near = own.locate(("near",)).found
    assert [found.set.name for found in near] == [item.name for item in own.inputs.source.near(32, 0.0)]


def test_the_sets_are_those_of_the_options(shapes, elsewhere):
    own = OwnImages(Config(data=str(shapes), ood=(f"near={elsewhere}",)))
    groups = [(item.name, item.group) for item in own.protocol.sets]
    assert groups[:3] == [("ID/train", "train"), ("ID/test", "test"), ("elsewhere", "near")]
    assert {found.set.group for found in own.locate(("near",)).found} == {"near"}
