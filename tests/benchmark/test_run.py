from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score

from oodream.core.errors import DataError
from oodream.core.registry import names
from oodream.core.tensors import save_tensors
from oodream.models.factory import backbone
from tests.helpers.bucket import objects
from tests.helpers.protocols import PLACES, evaluate, picture, pixels, rows, run_command, save


def test_lists_are_evaluated_as_they_say(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(out)) == 0
    assert "note:" not in capsys.readouterr().err
    network = backbone("resnet8", 3).eval()
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        logits = {place: network(pixels(root, place)[0]).logits_BC for place in PLACES}
    energy = {place: -torch.logsumexp(x.double(), 1).numpy() for place, x in logits.items()}
    found = rows(out)
    for place in ("near", "far"):
        truth = [0] * PLACES["test"] + [1] * PLACES[place]
        expected = roc_auc_score(truth, np.concatenate([energy["test"], energy[place]]))
        assert found["energy", f"{place}-set", place].auroc == pytest.approx(expected)
        assert found["energy", "mean", place].auroc == pytest.approx(expected)
    accuracy = (logits["test"].argmax(1) == pixels(root, "test")[1]).double().mean().item()
    assert accuracy > 0.9
    assert found["energy", "near-set", "near"].accuracy == pytest.approx(accuracy)
    assert {detector for detector, *_ in found} == {"energy", "msp", "max_logit", "knn", "mahalanobis"}
    table = (out / "results.md").read_text()
    row = found["energy", "near-set", "near"]
    low, high = (100 * end for end in row.intervals["auroc"])
    assert f"| {100 * row.auroc:.1f} [{low:.1f}, {high:.1f}] |" in table
    assert "fpr95_ood" in table
    facts = json.loads((out / "evaluation.json").read_text())
    assert facts["sets"]["far-set"]["images"] == PLACES["far"]
    assert facts["notes"] == []
    cached = {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("*.safetensors")}
    assert len(cached) == len(PLACES) + 1  # and a check on pseudo-OOD images
    assert evaluate(root, "--model", "resnet8", "--weights", str(weights), "--out", str(out)) == 0
    assert {file: file.stat().st_mtime_ns for file in (out / "cache").rglob("*.safetensors")} == cached
    assert rows(out) == found
    assert f"note: {out} holds results already, which are replaced" in capsys.readouterr().err


def test_all_detectors_are_measured_and_an_impossible_accuracy_warns(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    save_tensors(tmp_path / "random.safetensors", backbone("resnet8", 3).state_dict())
    out = tmp_path / "out"
    more = ("--model", "resnet8", "--weights", str(tmp_path / "random.safetensors"), "--detectors", "all")
    assert evaluate(root, *more, "--out", str(out), "--max-images", "9", "--fit", "6") == 0
    caught = capsys.readouterr()
    assert "something is wrong" in caught.err
    assert "something is wrong" in caught.out
    facts = json.loads((out / "evaluation.json").read_text())
    counts = {name: s["images"] for name, s in facts["sets"].items()}
    assert counts == {"train-set": 6, "test-set": 9, "near-set": 9, "far-set": 9}
    assert (facts["max_images"], facts["fit"]) == (9, 6)
    used = {detector for detector, *_ in rows(out)}
    left = {note.split()[0] for note in facts["notes"] if " is left out: " in note}
    assert {"energy", "odin", "msp"} <= used
    assert {"weighted_energy", "outlier_probe", "energy_probe"} <= left
    assert used | left == {*names("detectors")}


def test_embedded_protocol(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_tensors(tmp_path / "w.safetensors", backbone("resnet8", 8).state_dict())
    out = tmp_path / "out"
    args = [
        *("evaluate", "--protocol", "embedded", "--model", "resnet8"),
        *("--weights", str(tmp_path / "w.safetensors"), "--detectors", "energy", "knn"),
        *("--max-images", "40", "--resamples", "5", "--out", str(out), "--device", "cpu"),
    ]
    with pytest.warns(UserWarning, match="something is wrong"):
        run_command(args)
    found = rows(out)
    far = [found["knn", name, "far"].auroc for name in ("digits", "letters", "photos", "textures", "noise")]
    assert found["knn", "mean", "far"].auroc == pytest.approx(sum(far) / 5)
    near = [found["knn", name, "near"].auroc for name in ("bag", "ankle-boot")]
    assert found["knn", "mean", "near"].auroc == pytest.approx(sum(near) / 2)


def test_results_in_a_bucket(root: Path, weights: Path, s3: str, tmp_path: Path, capsys) -> None:
    """The network's outputs stay on this machine, and serve the next time."""
    network, out = ("--model", "resnet8", "--weights", str(weights), "--out"), f"{s3}/results"
    assert evaluate(root, *network, str(tmp_path / "here")) == 0
    assert evaluate(root, *network, out) == 0
    assert f"Results: {out}\n" in capsys.readouterr().out
    names = {"results.jsonl", "results.md", "evaluation.json"}
    here = {f"results/{name}": (tmp_path / "here" / name).read_bytes() for name in names}
    assert objects(s3) == here
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")}
    assert kept
    assert evaluate(root, *network, out) == 0
    assert objects(s3) == here
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.safetensors")} == kept


@pytest.mark.parametrize(("tune", "groups"), [("val", "val and val-ood"), (".", "val")])
def test_without_validation_sets_there_is_nothing_to_tune_on(
    root: Path, weights: Path, tmp_path: Path, tune: str, groups: str
) -> None:
    args = ["evaluate", "--protocol", str(root / "colours.toml"), "--model", "resnet8"]
    with pytest.raises(DataError, match=f"no set of the group {groups} to choose options on"):
        run_command([*args, "--weights", str(weights), "--tune", tune, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("detectors", "message"),
    [
        (("knn", "energy", "knn"), "'knn' is named twice. Tell them apart as knn@LABEL"),
        (("all", "energy"), "'all' stands for every detector"),
    ],
)
def test_detectors_that_cannot_stand_together_are_refused_before_work(
    root: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    detectors: tuple[str, ...],
    message: str,
) -> None:
    more = ("--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "out"))
    assert evaluate(root, *more, "--detectors", *detectors) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_detector_that_stands_twice_has_two_names(root: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--model", "resnet8", "--weights", str(weights), "--out", str(out))
    assert evaluate(root, *more, "--detectors", "knn", "knn@one", "--detector-options", "knn@one.k=1") == 0
    assert {name for name, *_ in rows(out)} == {"knn", "knn@one"}
    assert rows(out)["knn", "far-set", "far"].autc != rows(out)["knn@one", "far-set", "far"].autc


def test_a_detector_that_cannot_be_used_is_left_out_and_named(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs class weights, which this network has none of."""
    out = tmp_path / "out"
    more = ("--model", "resnet8", "--weights", str(weights), "--out", str(out), "--detectors")
    assert evaluate(root, *more, "energy", "weighted_energy") == 0
    assert {name for name, *_ in rows(out)} == {"energy"}
    assert "**weighted_energy is left out: " in capsys.readouterr().out
    assert evaluate(root, *more, "weighted_energy") == 2
    message = capsys.readouterr().err
    assert "None of the detectors can be used" in message
    assert "weighted_energy: " in message


def test_without_a_detector_that_learns_no_training_images_are_needed(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "benchmark_imglist" / "colours" / "train.txt").unlink()
    common = ("--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "out"), "--detectors")
    assert evaluate(root, *common, "energy", "msp") == 0
    capsys.readouterr()
    assert evaluate(root, *common, "energy", "knn") == 2
    assert "train-set (train, 24 images)" in capsys.readouterr().err


def outlier_folder(folder: Path) -> Path:
    """Gray and yellow pictures, of other numbers than those of the sets."""
    for i in range(10):
        save(picture(3 + i % 2, 5000 + i), folder / f"{i}.png")
    return folder


def test_a_detector_that_learns_from_outliers_is_refused_without_some(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "out"))
    assert evaluate(root, *more, "--detectors", "energy", "outlier_probe") == 2
    message = capsys.readouterr().err
    assert "The detector 'outlier_probe' has nothing to learn from" in message
    assert "--outliers" in message
    assert evaluate(root, *more, "--detectors", "outlier_probe", "--outliers", "no-folder") == 2
    assert "no-folder is not a folder. --outliers takes a folder" in capsys.readouterr().err
    folder = str(outlier_folder(tmp_path / "strange"))
    assert evaluate(root, *more, "--detectors", "energy", "--outliers", folder, "--tune", folder) == 2
    assert "--tune and --outliers are the same images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_outliers_it_is_measured_and_the_others_as_before(
    root: Path, weights: Path, tmp_path: Path
) -> None:
    common = ("--model", "resnet8", "--weights", str(weights))
    outliers = ("--outliers", str(outlier_folder(tmp_path / "strange")))
    probes = ("outlier_probe", "energy_probe")
    assert evaluate(root, *common, "--out", str(tmp_path / "plain"), "--detectors", "energy", "knn") == 0
    more = ("--detectors", "energy", "knn", *probes)
    assert evaluate(root, *common, "--out", str(tmp_path / "more"), *outliers, *more) == 0
    plain, both = rows(tmp_path / "plain"), rows(tmp_path / "more")
    assert {key: row for key, row in both.items() if key[0] in ("energy", "knn")} == plain
    assert both["outlier_probe", "near-set", "near"].auroc > 0.95
    notes = json.loads((tmp_path / "more" / "evaluation.json").read_text())["notes"]
    assert [note for note in notes if "learned from 10 outliers" in note] == [
        f"outlier_probe, energy_probe learned from 10 outliers, the images of {outliers[1]}."
    ]


def test_a_run_teaches_as_its_training_shows_outliers(
    root: Path, weights: Path, finished: Path, tmp_path: Path
) -> None:
    model = ("--model", "resnet8", "--weights", str(weights), "--detectors", "energy", "outlier_probe")
    found = []
    for name, folder in (("run", finished), ("images", finished / "images" / "imagined")):
        assert evaluate(root, *model, "--out", str(tmp_path / name), "--outliers", str(folder)) == 0
        found.append(rows(tmp_path / name))
        notes = json.loads((tmp_path / name / "evaluation.json").read_text())["notes"]
        (note,) = (note for note in notes if note.startswith("outlier_probe learned from"))
        assert note.endswith(f"outliers of {finished}, shown as its training shows them.")
    assert found[0] == found[1]
    raw = shutil.copytree(finished / "images" / "imagined", tmp_path / "raw")
    assert evaluate(root, *model, "--out", str(tmp_path / "plain"), "--outliers", str(raw)) == 0
    plain = rows(tmp_path / "plain")
    assert {key: row for key, row in plain.items() if key[0] == "energy"} == {
        key: row for key, row in found[0].items() if key[0] == "energy"
    }
    assert plain["outlier_probe", "near-set", "near"] != found[0]["outlier_probe", "near-set", "near"]


SHIFT_SET = '[[sets]]\nname = "dim"\ngroup = "shift"\nfolders = ["dim"]\nsource = "colours"\n'


@pytest.fixture
def dim(root: Path) -> Path:
    """The protocol with a set of darker pictures of two of its classes."""
    (root / "colours.toml").write_text((root / "colours.toml").read_text() + SHIFT_SET)
    for kind, name in enumerate(("red", "green")):
        for i in range(8):
            darker = np.asarray(picture(kind, 9000 + i)) // 2
            save(Image.fromarray(darker.astype(np.uint8)), root / "dim" / name / f"{i}.png")
    return root


def test_on_the_full_spectrum_shifted_images_are_known(dim: Path, weights: Path, tmp_path: Path) -> None:
    common = ("--model", "resnet8", "--weights", str(weights), "--detectors", "energy", "knn")
    assert evaluate(dim, *common, "--out", str(tmp_path / "plain")) == 0
    assert evaluate(dim, *common, "--out", str(tmp_path / "full"), "--full-spectrum") == 0
    assert rows(tmp_path / "full") == rows(tmp_path / "plain"), "what is measured without stays"
    assert not (tmp_path / "plain" / "full_spectrum.jsonl").exists()
    full = rows(tmp_path / "full", "full_spectrum")
    network = backbone("resnet8", 3).eval()
    network.load_state_dict(load_file(weights))
    dark = [file for name in ("red", "green") for file in sorted((dim / "dim" / name).iterdir())]
    images = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in dark])
    x, y = pixels(dim, "test")
    known, labels = torch.cat([x, images]), torch.cat([y, torch.tensor([0] * 8 + [1] * 8)])
    with torch.no_grad():
        id_logits, ood_logits = (network(part).logits_BC.double() for part in (known, pixels(dim, "near")[0]))
    scores = -torch.cat([id_logits, ood_logits]).logsumexp(1).numpy()
    truth = [0] * len(known) + [1] * len(ood_logits)
    row = full["energy", "near-set", "near"]
    assert row.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert row.accuracy == pytest.approx((id_logits.argmax(1) == labels).double().mean().item())
    assert (row.n_id, row.n_ood) == (18 + 16, PLACES["near"])
    assert full["energy", "mean", "near"].auroc == row.auroc
    table = (tmp_path / "full" / "results.md").read_text()
    assert "# Full spectrum" in table
    assert f"on {row.n_id} images" in table
    assert "# Full spectrum" not in (tmp_path / "plain" / "results.md").read_text()


def test_a_protocol_without_shifted_sets_has_no_full_spectrum(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--model", "resnet8", "--weights", str(weights), "--out", str(tmp_path / "out"))
    assert evaluate(root, *more, "--full-spectrum") == 2
    assert "colours has no set of the group shift" in capsys.readouterr().err


def test_shifted_sets_are_looked_for_on_the_full_spectrum_alone(
    dim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(dim / "dim")
    assert evaluate(dim, "--dry-run") == 0
    assert "dim" not in capsys.readouterr().out
    assert evaluate(dim, "--dry-run", "--full-spectrum") == 0
    assert "dim (shift)" in capsys.readouterr().out
