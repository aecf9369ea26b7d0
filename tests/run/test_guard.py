"""`oodream guard`: a guard for somebody's network, from a file of it and a folder of pictures."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from oodream import Guard, Run
from oodream.cli.main import main
from oodream.data.builtin import digits
from oodream.data.folders import list_ood
from oodream.run.guard_inputs import GuardInputs, GuardJob
from oodream.run.guard_page import read_scores
from oodream.run.guards import measurements, save_guard
from oodream.runtime import Guard as GraphGuard
from tests.helpers.bucket import objects
from tests.helpers.guarded import SIZE, Logits, classifier, output_names, save_clothes, save_logits
from tests.helpers.onnx_files import save_logits_as_onnx
from tests.helpers.page import Page

PIXELS = ("--mean", "0", "--std", "1")
FEW = ("--detectors", "energy", "knn", "mahalanobis")


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A network's file, the names of its outputs, pictures in class folders, and some of digits."""
    folder = tmp_path_factory.mktemp("desk")
    save_logits(folder / "net.pt2")
    (folder / "labels.txt").write_text("\n".join(output_names()) + "\n")
    save_clothes(folder / "photos", 400)
    images = digits(24, 60)
    (folder / "digits").mkdir()
    for i, image in enumerate(images.batch(range(60))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "digits" / f"{i:02}.png")
    return folder


def guard(desk: Path, out: Path | str, *more: str, data: str = "photos", labels: bool = True) -> int:
    known = ("--labels", str(desk / "labels.txt")) if labels else ()
    cache = () if "--cache" in more else ("--cache", str(desk / "cache"))
    return main(
        ["guard", "--model", str(desk / "net.pt2"), "--data", str(desk / data), "--out", str(out), *known,
            *cache,
         *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(desk, tmp_path_factory) -> Path:
    """A guard, its detector chosen and measured on digits."""
    out = tmp_path_factory.mktemp("made") / "guard"
    assert guard(desk, out, *PIXELS, *FEW, "--ood", f"far={desk / 'digits'}") == 0
    return out


# The guard


def test_a_guard_answers_in_the_folders_words(made, desk):
    read = Guard.load(made, plugins=True)
    assert sorted(read.names) == sorted(path.name for path in (desk / "photos").iterdir())
    files = list_ood(desk / "photos").pictures.files
    predictions = read.predict(list(files))
    truth = [Path(file).parent.name for file in files]
    right = np.mean([p.likeliest == name for p, name in zip(predictions, truth, strict=True)])
    flagged = np.mean([p.flagged for p in predictions])
    assert right > 0.7
    assert flagged < 0.1
    strange = read.predict(sorted((desk / "digits").glob("*.png")))
    assert np.mean([p.flagged for p in strange]) > 3 * flagged


def test_its_network_is_the_files_own(made, desk):
    read = Guard.load(made, plugins=True)
    images = list_ood(desk / "photos").read(SIZE)
    theirs = Logits().eval()
    order = [output_names().index(name) for name in read.names]
    x = images.batch(range(20))
    with torch.no_grad():
        expected = theirs(x.float() / 255)[:, order]
        torch.testing.assert_close(read.network(x).logits_BC, expected, rtol=1e-3, atol=1e-3)


def test_a_folder_that_needs_code_is_read_only_where_that_is_wanted(made, desk, tmp_path, capsys):
    for net, says in ((save_logits_as_onnx(tmp_path / "net.onnx"), False), (desk / "net.pt2", True)):
        args = ("--detectors", "energy", "--model", str(net), "--redo")
        assert guard(desk, tmp_path / "g", *PIXELS, *args) == 0
        assert ("export and studio take --plugins" in capsys.readouterr().out) == says
    picture = str(next((desk / "digits").glob("*.png")))
    assert main(["score", picture, "--run", str(made)]) == 2
    assert "names the plug-in 'exported:net.pt2'" in capsys.readouterr().err
    assert main(["score", picture, "--run", str(made), "--plugins"]) == 0
    assert "threshold" in capsys.readouterr().out


def test_a_guard_in_a_bucket(desk, s3, tmp_path, capsys):
    out = f"{s3}/guards/mine"
    assert guard(desk, out, *PIXELS, *FEW) == 0
    assert f"Guard: {out}\nReport: {out}/report.html\n" in capsys.readouterr().out
    assert guard(desk, tmp_path / "mine", *PIXELS, *FEW) == 0
    there = {name.removeprefix("guards/mine/"): data for name, data in objects(s3).items()}
    here = {file.name: file.read_bytes() for file in (tmp_path / "mine").iterdir()}
    assert there.keys() == here.keys()
    reports = {"report.html", "report.json"}
    assert {name for name in here if here[name] != there[name]} <= reports, "their command and their time"
    capsys.readouterr()
    assert guard(desk, out, *PIXELS, *FEW) == 0
    assert (
        f"This guard is finished. For another, choose another --out.\nGuard: {out}\n"
        in capsys.readouterr().out
    )
    assert guard(desk, out, *PIXELS, *FEW, "--model", "nowhere.pt2") == 2
    assert f"{out} holds the guard of another command: oodream guard " in capsys.readouterr().err
    assert guard(desk, out, *PIXELS, *FEW, "--alpha", "0.1", "--redo") == 0
    assert json.loads(objects(s3)["guards/mine/config.json"])["guarantee"]["alpha"] == 0.1


def test_it_is_exported_as_any_guard(made, tmp_path):
    assert main(["export", str(made), "--out", str(tmp_path / "x"), "--onnx", "--plugins"]) == 0
    card = (tmp_path / "x" / "README.md").read_text()
    assert re.search(r"`exported:net.pt2`, images of 12 x 12 pixels; a file of [\d.]+ MB\n", card)
    assert (tmp_path / "x" / "guard.onnx").exists()


def test_the_card_says_what_the_report_says(made, tmp_path):
    assert main(["export", str(made), "--out", str(tmp_path / "x"), "--plugins"]) == 0
    card, facts = (tmp_path / "x" / "README.md").read_text(), json.loads((made / "report.json").read_text())
    accuracy, (digits,) = facts["accuracy"], facts["measured"]
    assert f"Accuracy on {accuracy['n']:,} known images: {accuracy['value']:.1%}." in card
    numbers = [f"{digits[key]:.1%}" for key in ("auroc", "fpr95_id")]
    assert f"| digits | far | {' | '.join(numbers)} | {digits['n']} | {digits['flagged']:.1%} |" in card
    assert "The promise supposes that the network was not trained on these images" in card, "no splits"
    assert "neither the\nnetwork" not in card
    moved, _ = save_guard(tmp_path, Guard.load(made, plugins=True).at(0.2), measurements(made))
    assert f"| {numbers[0]} | {numbers[1]} | {digits['n']} |\n" in (moved / "README.md").read_text()
    for again in (made, tmp_path / "x"):  # of the latter nobody knows what was measured
        out = tmp_path / f"of-{again.name}"
        assert main(["export", str(again), "--out", str(out), "--plugins"]) == 0
        text = (out / "README.md").read_text()
        assert ("| digits |" in text) == ("sets above" in text) == (again == made)
        assert "The promise supposes" in text


def test_the_network_of_a_guard_with_splits_has_not_seen_the_test_images(desk, tmp_path):
    shutil.copytree(desk / "photos", tmp_path / "split" / "train")
    save_clothes(tmp_path / "split" / "test", 900)
    out = tmp_path / "g"
    assert guard(desk, out, *PIXELS, "--detectors", "energy", data=str(tmp_path / "split")) == 0
    assert not measurements(out).supposed


def test_the_code_to_copy_allows_the_code_that_it_needs(made, desk, tmp_path, monkeypatch):
    assert main(["export", str(made), "--out", str(tmp_path / "x"), "--plugins"]) == 0
    (tmp_path / made.name).symlink_to(made)
    shutil.copy(next((desk / "digits").glob("*.png")), tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    card, report = (tmp_path / "x" / "README.md").read_text(), (made / "report.html").read_text()
    for text, start, end in ((card, "```python\n", "```"), (report, "<h3>Use it</h3><pre>", "</pre>")):
        exec(html.unescape(text.split(start)[1].split(end)[0]), {})
        assert "code is run" in text
    net = save_logits_as_onnx(tmp_path / "net.onnx")
    assert guard(desk, tmp_path / "data", *PIXELS, "--detectors", "energy", "--model", str(net)) == 0
    assert (
        "plugins" not in (tmp_path / "data" / "report.html").read_text().split("Use it")[1].split("<h3>")[0]
    )


def test_one_on_an_onnx_file_becomes_one_graph(desk, tmp_path):
    """Which answers in the folders' words, as the guard does."""
    net = str(save_logits_as_onnx(tmp_path / "net.onnx"))
    assert guard(desk, tmp_path / "g", *PIXELS, "--detectors", "energy", "--model", net) == 0
    assert main(["export", str(tmp_path / "g"), "--out", str(tmp_path / "x"), "--onnx"]) == 0
    files = sorted((desk / "digits").glob("*.png")) + sorted((desk / "photos").rglob("*.png"))[:60]
    expected = Guard.load(tmp_path / "g").predict(files)
    for one, other in zip(GraphGuard.load(tmp_path / "x").predict(files), expected, strict=True):
        assert (one.answer, one.likeliest) == (other.answer, other.likeliest)


def test_a_runs_classifier_gets_one_as_any_network(desk, tmp_path, capsys):
    folder = tmp_path / "run" / "classifier" / "baseline-s0"
    classifier().save(folder)
    args = ("--data", str(desk / "photos"), "--out", str(tmp_path / "g"), "--detectors", "energy")
    assert main(["guard", "--model", str(folder), *args]) == 0
    read, images = Guard.load(tmp_path / "g"), list_ood(desk / "photos").read(SIZE).batch(range(20))
    order = [classifier().names.index(name) for name in read.names]
    with torch.no_grad():
        expected = classifier().network(images).logits_BC[:, order]
        torch.testing.assert_close(read.network(images).logits_BC, expected, rtol=1e-4, atol=1e-4)
    capsys.readouterr()
    assert main(["guard", "--model", str(folder), "--weights", "w", *args, "--redo"]) == 2
    assert "has weights of its own" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["program", "onnx"])
def test_its_network_is_put_into_integers(kind, desk, tmp_path):
    """On the images that it was made of, which its folder names, whatever the working directory."""
    net = save_logits_as_onnx(tmp_path / "net.onnx") if kind == "onnx" else desk / "net.pt2"
    ood = ("--ood", f"far={desk / 'digits'}")
    assert guard(desk, tmp_path / "g", *PIXELS, "--detectors", "energy", "--model", str(net), *ood) == 0
    assert main(["export", str(tmp_path / "g"), "--out", str(tmp_path / "x"), "--int8", "--plugins"]) == 0
    card = (tmp_path / "x" / "README.md").read_text()
    assert "`guard-int8.onnx` has 9 layers of the network in 8-bit integers, all but the last" in card
    assert re.search(r"\| accuracy on known images \| 160 \| [\d.]+% \| [\d.]+% \|", card)
    assert re.search(r"\| AUROC, digits \(far\) \| 30 \| [\d.]+% \| [\d.]+% \|", card)
    small = GraphGuard.load(tmp_path / "x" / "guard-int8.onnx")
    whole = Guard.load(tmp_path / "g", plugins=True)
    assert (small.guarantee, small.threshold != whole.threshold) == (whole.guarantee, True)
    files = sorted((desk / "photos").rglob("*.png"))[:100]
    pairs = zip(small.predict(files), whole.predict(files), strict=True)
    assert sum(one.likeliest == other.likeliest for one, other in pairs) >= 95


def test_without_real_unknown_images_the_disturbed_ones_tell_what_integers_cost(desk, tmp_path, monkeypatch):
    shutil.copytree(desk / "photos", tmp_path / "photos")
    out = tmp_path / "g"
    monkeypatch.chdir(tmp_path)
    named = ("--model", str(desk / "net.pt2"), "--labels", str(desk / "labels.txt"), "--data", "photos")
    assert main(["guard", *named, *PIXELS, "--detectors", "energy", "--out", str(out)]) == 0
    monkeypatch.chdir(desk)
    assert main(["export", str(out), "--out", str(tmp_path / "x"), "--int8", "--plugins"]) == 0
    assert "| AUROC, shuffled (far) |" in (tmp_path / "x" / "README.md").read_text()
    facts = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps({**facts, "inputs": None}))
    assert main(["export", str(out), "--out", str(tmp_path / "y"), "--int8", "--plugins"]) == 2
    (out / "report.json").write_text(json.dumps(facts))
    next((tmp_path / "photos").rglob("*.png")).unlink()
    assert main(["export", str(out), "--out", str(tmp_path / "y"), "--int8", "--plugins"]) == 2
    assert not (tmp_path / "y").exists()


def test_its_scores_of_unknown_pictures_are_kept(made):
    ((name, (group, score_N)),) = read_scores(made).items()
    assert (name, group) == ("digits", "far")
    (measured,) = json.loads((made / "report.json").read_text())["measured"]
    guard = Guard.load(made, plugins=True)
    assert len(score_N) == measured["n"]
    assert (score_N > guard.threshold).double().mean().item() == pytest.approx(measured["flagged"])


def test_the_report_and_its_facts(made):
    facts = json.loads((made / "report.json").read_text())
    assert facts["images"] == {"fit": 160, "choose": 80, "held_out": 160}
    assert facts["chosen_on"] == "real unknown images"
    assert facts["accuracy"]["n"] == 240
    assert facts["other_half"] < 0.2
    assert facts["other_half_images"] == 80
    assert facts["supposed"] is True, "no splits"
    assert facts["preprocessing"]["size"] == SIZE
    assert {*facts["aurocs"]} == {"energy", "knn", "mahalanobis"}
    best = max(facts["aurocs"], key=lambda name: facts["aurocs"][name]["digits"])
    assert facts["detector"]["name"] == best
    (measured,) = facts["measured"]
    assert (measured["name"], measured["group"], measured["n"]) == ("digits", "far", 30)
    assert measured["auroc"] > 0.5
    page = (made / "report.html").read_text()
    seen = Page(page)
    assert seen.mismatched == []
    (title,) = seen.texts["h1"]
    assert title.startswith("At most 5.00% of known images are flagged, with 0.95 confidence (160 held-out")
    heads = " ".join(seen.texts["th"])
    assert "accepted where 95 % of known are, %" in heads
    assert "flagged by the guard, %" in heads
    assert f"{100 * (1 - measured['flagged']):.1f} % accepted by the guard" in page.replace("\u00a0", " ")
    cells = " ".join(seen.texts["td"])
    for words in ("exported:net.pt2", "160 to fit to", f"{100 * facts['aurocs'][best]['digits']:.1f}"):
        assert words in cells
    assert len([tag for tag, _ in seen.tags if tag == "img"]) == 16  # answers to known and to unknown images
    assert "script" not in seen.texts


def test_the_same_command_again_says_that_the_guard_is_finished(made, desk, capsys):
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    assert guard(desk, made, *PIXELS, *FEW, "--ood", f"far={desk / 'digits'}") == 0
    said = capsys.readouterr().out
    assert "This guard is finished." in said
    assert f"Guard: {made}\n" in said
    assert before == {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    assert guard(desk, made, *PIXELS, *FEW) == 2
    command = json.loads((made / "report.json").read_text())["command"]
    assert f"{made} holds the guard of another command: {command}\nAdd --redo" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["data", "added", "ood", "model", "labels"])
def test_a_finished_guard_of_what_has_changed_is_refused_until_it_is_made_anew(what, desk, tmp_path, capsys):
    for name in ("photos", "digits", "net.pt2", "labels.txt"):
        (shutil.copytree if (desk / name).is_dir() else shutil.copy)(desk / name, tmp_path / name)
    out, args = tmp_path / "g", (*PIXELS, "--detectors", "energy", "--ood", f"far={tmp_path / 'digits'}")
    assert guard(tmp_path, out, *args) == 0
    picture = next((tmp_path / ("digits" if what == "ood" else "photos")).rglob("*.png"))
    if what in ("model", "labels"):
        with (tmp_path / {"model": "net.pt2", "labels": "labels.txt"}[what]).open("a") as file:
            file.write("\n")
    elif what == "added":
        shutil.copy(picture, picture.with_name("one-more.png"))
    else:
        Image.open(picture).transpose(Image.Transpose.ROTATE_180).save(picture)
    capsys.readouterr()
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert guard(tmp_path, out, *args) == 2
    option = "data" if what == "added" else what
    n = len(list(picture.parent.glob("*.png") if what == "ood" else (tmp_path / "photos").rglob("*.png")))
    then = n - 1 if what == "added" else n
    counted = "" if what in ("model", "labels") else f" ({n} pictures, then {then}; changed or new are 1: "
    said = capsys.readouterr().err
    assert f"is not the same any more: --{option}{counted}" in said
    if what in ("data", "ood"):
        assert f"{counted}{picture.resolve()}). Add --redo" in said
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    if what == "added":
        (out / "left-over").touch()
        assert guard(tmp_path, out, *args, "--redo") == 0
        assert {file.name for file in out.iterdir()} == before.keys()
        assert guard(tmp_path, out, *args) == 0
        assert "This guard is finished." in capsys.readouterr().out


def test_what_is_no_guard_is_not_replaced_by_one(desk, tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert guard(desk, tmp_path, *PIXELS, *FEW, "--redo") == 2
    assert "holds something already" in capsys.readouterr().err
    assert (tmp_path / "mine").exists()


def test_class_by_class(desk, tmp_path, capsys):
    """What is flagged is measured at the thresholds of the classes."""
    ood = f"far={desk / 'digits'}"
    args = (*PIXELS, "--detectors", "energy", "--ood", ood, "--per-class", "--alpha", "0.1")
    assert guard(desk, tmp_path / "g", *args) == 0
    half = "Seen on one half of the held-out images, at one threshold for all from the other:"
    assert re.search(rf"\n{half} \d+\.\d% of 80 flagged\nGuard:", capsys.readouterr().out)
    read = Guard.load(tmp_path / "g", plugins=True)
    assert read.per_class
    assert "class by class, with 0.95 confidence" in str(read.guarantee)
    job = GuardJob(
        model="", data=str(desk / "photos"), ood=(ood,), detectors=("energy",), alpha=0.1,
        out=tmp_path, cache=tmp_path,
    )  # fmt: skip
    inputs = GuardInputs(job)
    known = inputs.known(SIZE)
    (strange,) = inputs.unknown(known[0], known[1]).measure
    predictions = read.predict(strange.images)
    flagged = np.mean([one.flagged for one in predictions])
    assert flagged != np.mean([one.score > read.threshold for one in predictions])
    assert json.loads((tmp_path / "g" / "report.json").read_text())["measured"][0]["flagged"] == flagged
    cells = Page((tmp_path / "g" / "report.html").read_text()).texts["td"]
    assert any(cell.startswith("by class, ") for cell in cells)


# Which images


def test_disturbed_known_images_choose_where_nothing_else_is_given(desk, tmp_path, capsys):
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW) == 0
    facts = json.loads((tmp_path / "g" / "report.json").read_text())
    assert f"\nAccuracy: {facts['accuracy']['value']:.1%} of 240 images (95 % " in capsys.readouterr().out
    assert facts["chosen_on"] == "known images, disturbed, and classes left out"
    assert {*facts["aurocs"]["knn"]} == {"shuffled", "inverted", "blended", "classes left out"}
    assert facts["measured"] == []


def test_pictures_without_labels(desk, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (desk / "photos").rglob("*.png"):
        shutil.copy(file, flat / f"{file.parent.name}-{file.name}")
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, data=str(flat)) == 0
    said = capsys.readouterr().out
    assert "Without labels the accuracy is not measured" in said
    assert "Accuracy:" not in said
    read = Guard.load(tmp_path / "g", plugins=True)
    assert list(read.names) == output_names()
    facts = json.loads((tmp_path / "g" / "report.json").read_text())
    assert facts["accuracy"] is None
    assert {*facts["aurocs"]} == {"energy", "knn"}
    assert guard(desk, tmp_path / "h", *PIXELS, *FEW, "--unlabelled", "--alpha", "0.02") == 0
    assert "from the other: a half is too few images for a threshold\n" in capsys.readouterr().out
    facts = json.loads((tmp_path / "h" / "report.json").read_text())
    assert facts["accuracy"] is facts["other_half"] is facts["other_half_images"] is None
    assert main(["export", str(tmp_path / "h"), "--out", str(tmp_path / "x"), "--int8", "--plugins"]) == 0
    card = (tmp_path / "x" / "README.md").read_text()
    assert "| AUROC, shuffled (far) |" in card
    assert "accuracy on known images" not in card


def test_real_unknown_images_teach_choose_and_measure(desk, tmp_path):
    """A half to measure on, a quarter to choose on and a quarter to learn from."""
    ood = ("--ood", f"far={desk / 'digits'}", "--detectors", "outlier_probe")
    assert guard(desk, tmp_path / "g", *PIXELS, *ood) == 0
    facts = json.loads((tmp_path / "g" / "report.json").read_text())
    assert facts["detector"]["name"] == "outlier_probe"
    assert facts["measured"][0]["n"] == 30
    assert facts["measured"][0]["auroc"] > 0.95
    read = Guard.load(tmp_path / "g", plugins=True)
    assert read.detector.weight_F_.abs().sum() > 0


def test_a_class_left_out_of_the_folder_is_unknown(desk, tmp_path):
    """It lies inside the folder of known pictures, and the network knows it by name."""
    left = sorted(path.name for path in (desk / "photos").iterdir())[0]
    near = f"near={desk / 'photos' / left}"
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, "--alpha", "0.1", "--ood", near) == 0
    read = Guard.load(tmp_path / "g", plugins=True)
    assert left not in read.names
    assert len(read.names) == 3
    (measured,) = json.loads((tmp_path / "g" / "report.json").read_text())["measured"]
    assert (measured["name"], measured["group"]) == (left, "near")


def test_a_folder_with_splits_holds_out_its_test_images(desk, tmp_path, capsys):
    for i, file in enumerate(sorted((desk / "photos").rglob("*.png"))):
        place = tmp_path / "split" / ("test" if i % 3 else "train") / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, data=str(tmp_path / "split")) == 0
    said = capsys.readouterr().out
    assert "134 to fit to, 80 to choose on, 186 held out" in said
    assert "supposes that the network was not trained" not in said


def test_imagined_outliers_of_a_run_teach_or_choose(finished, shapes, tmp_path, capsys):
    """The run's network stands for somebody's. Who has learned from outliers is not chosen on them."""
    weights = finished / "classifier" / "baseline-s0" / "model.safetensors"
    arguments = [
        "guard", "--model", "resnet8", "--weights", str(weights), "--data", str(shapes), "--size", "32",
        "--alpha", "0.3", "--detectors", "energy", "msp", "outlier_probe", "--any-accuracy",
    ]  # fmt: skip
    arguments += ["--out", str(tmp_path / "g")]
    assert main([*arguments, "--outliers", str(finished)]) == 0
    facts = json.loads((tmp_path / "g" / "report.json").read_text())
    assert facts["chosen_on"] == "known images, disturbed, and classes left out"
    sets = {"shuffled", "inverted", "blended", "classes left out"}
    assert {name: {*aurocs} for name, aurocs in facts["aurocs"].items()} == dict.fromkeys(
        ("energy", "msp", "outlier_probe"), sets
    )
    kept = int(Run.open(finished).keep_mask.sum())
    taught = f"What teaches are {kept} outliers of {finished}, shown as its training shows them."
    assert taught in facts["notes"]
    assert f"note: {taught}" in capsys.readouterr().out
    assert Guard.load(tmp_path / "g").guarantee.alpha == 0.3  # a network of this project's runs no code
    shutil.rmtree(tmp_path / "g")
    detectors = arguments.index("msp")
    alone = [*arguments[:detectors], *arguments[detectors + 2 :]]
    assert main([*alone, "--outliers", str(finished / "images" / "imagined")]) == 0
    facts = json.loads((tmp_path / "g" / "report.json").read_text())
    assert facts["chosen_on"] == "imagined outliers"
    assert {*facts["aurocs"]["energy"]} == {"outliers"}


# What looks wrong


def test_classes_in_another_order_are_found_out(desk, tmp_path, capsys):
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, labels=False) == 2
    message = capsys.readouterr().err
    assert "The classes are in another order than the network's outputs" in message
    assert f"in the order {', '.join(output_names())}" in message
    assert "--labels" in message
    assert not (tmp_path / "g").exists()
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, "--any-accuracy", labels=False) == 0
    assert "another order" in (tmp_path / "g" / "report.html").read_text()


@pytest.mark.parametrize("shift", [1, 3])
def test_the_order_that_is_advised_is_right_whatever_names_were_given(desk, tmp_path, capsys, shift):
    names, wrong = output_names(), tmp_path / "wrong.txt"
    wrong.write_text("\n".join(names[shift:] + names[:shift]))
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, "--labels", str(wrong), labels=False) == 2
    assert f"in the order {', '.join(names)} " in capsys.readouterr().err


def test_of_some_of_a_networks_classes_the_outputs_are_named(desk, tmp_path, capsys):
    names, wrong = output_names(), tmp_path / "wrong.txt"
    for name in names[:3]:
        shutil.copytree(desk / "photos" / name, tmp_path / "some" / name)
    wrong.write_text("\n".join([names[1], names[0], *names[2:]]))
    labels = ["--labels", str(wrong), "--data", str(tmp_path / "some"), "--alpha", "0.3"]
    assert guard(desk, tmp_path / "g", *PIXELS, *FEW, *labels, labels=False) == 2
    assert f"with {names[0]} as output 0, {names[1]} as output 1, counted from 0," in capsys.readouterr().err


def test_pixels_normalised_otherwise_are_found_out(desk, tmp_path, capsys):
    assert guard(desk, tmp_path / "g", "--mean", "0.5", "--std", "0.5", *FEW) == 2
    message = capsys.readouterr().err
    assert "The pixels look as if they were normalised otherwise" in message
    assert "from 0 to 1 (--mean 0 --std 1)" in message


class Untrained(nn.Module):
    """A network that knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(5)
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=g) * 0.01

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_a_network_that_knows_nothing_gets_no_guard_unless_it_must(desk, tmp_path, capsys):
    arguments = [
        "guard", "--model", f"{__name__}:Untrained", "--plugins", "--data", str(desk / "photos"), "--size",
            "12",
        *PIXELS, *FEW, "--out", str(tmp_path / "g"), "--cache", str(tmp_path / "cache"),
    ]  # fmt: skip
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert "no better than guessing" in message
    assert "Neither another order of the classes nor another usual normalisation mends it" in message
    assert main([*arguments, "--any-accuracy"]) == 0
    assert "no better than guessing" in capsys.readouterr().out


# Again


class Counting(Logits):
    """The network, which counts the images that it has seen and may be stopped."""

    seen = 0
    stop = 10**9

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        Counting.seen += len(pixels_B3HW)
        if Counting.seen > Counting.stop:
            raise KeyboardInterrupt
        return super().forward(pixels_B3HW)


def test_what_was_stopped_goes_on_and_a_second_look_is_quick(desk, tmp_path, monkeypatch):
    data = save_clothes(tmp_path / "photos", 1000)
    arguments = [
        "guard", "--model", f"{__name__}:Counting", "--plugins", "--data", str(data), "--size", str(SIZE),
            *PIXELS,
        *FEW, "--labels", str(desk / "labels.txt"), "--held-out", "500",
    ]  # fmt: skip

    def passes(name: str, stop: int = 10**9) -> tuple[int, int]:
        monkeypatch.setattr(Counting, "seen", 0)
        monkeypatch.setattr(Counting, "stop", stop)
        return main([*arguments, "--out", str(tmp_path / name)]), Counting.seen

    code, before = passes("g", stop=500)
    assert code == 130
    assert not (tmp_path / "g").exists()
    code, rest = passes("g")
    assert code == 0
    monkeypatch.setattr(Counting, "stop", 10**9)
    shutil.rmtree(tmp_path / "guard-cache")
    _, whole = passes("h")
    assert 300 <= whole - rest <= before  # what had been kept when it was stopped
    code, again = passes("i")
    assert code == 0
    assert again < 100  # what opening the network, and the pictures on the page, take
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("g", "i"))
    assert {key for key in first | second if first.get(key) != second.get(key)} == {"command", "seal"}


# Before any work


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--model", "timm-resnet18"), "No backbone is called 'timm-resnet18'"),
        (("--model", "none.onnx"), "none.onnx does not exist"),
        (("--model", "onnx:none.onnx"), "none.onnx does not exist"),
        (("--model", "photos"), "A model of transformers in one is called hf:photos"),
        (("--data", "nowhere"), "nowhere is not a folder"),
        (("--data", "one"), "has only one class"),
        (("--data", "empty"), "is empty"),
        (("--data", "few"), r"To promise that at most 5.00% of known images are flagged"),
        (("--data", "broken"), "That is more than 5%"),
        (("--data", "three"), "has 3 classes, and the network 4 outputs"),
        (("--alpha", "0.001"), "takes 2,995 held-out images"),
        (("--labels", "none.txt"), "none.txt cannot be read"),
        (("--labels", "blank.txt"), "holds no names"),
        (("--labels", "net.pt2"), "net.pt2 is no list of names"),
        (("--labels", "short.txt"), "names 3 outputs, and the network has 4"),
        (("--detectors", "enrgy"), "Did you mean 'energy'"),
        (("--detector-options", "knn.j=3"), "has no option 'j'"),
        (("--ood", "nowhere"), "nowhere is not a folder"),
        (("--ood", "."), "holds the known images"),
        (("--ood", "few/tshirt"), "has 5 images. It takes 20"),
        (("--outliers", "nowhere"), "nowhere is not a folder"),
        (("--out", "full"), "holds something already"),
        (("--size", "-1"), "size must be"),
        (("--device", "tpu9"), "There is no device"),
    ],
)
def test_bad_input_is_named_before_any_picture_is_opened(desk, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(desk / "photos", "photos")
    shutil.copy(desk / "net.pt2", "net.pt2")
    Path("empty").mkdir()
    save_clothes(Path("one"), 10, classes=1)
    save_clothes(Path("few"), 20)
    save_clothes(Path("three"), 200, classes=3)
    shutil.copytree("photos", "broken")
    for file in sorted(Path("broken").rglob("*.png"))[::4]:
        file.with_suffix(".heic").write_bytes(b"\0\0\0\x18ftypheic")
    Path("full").mkdir()
    Path("full/file").touch()
    Path("blank.txt").write_text("\n\n")
    Path("short.txt").write_text("a\nb\nc\n")

    def opened(*_: object) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr("oodream.data.images.read_or_measure", opened)
    base = {"--model": "net.pt2", "--data": "photos", "--out": "g"}
    base |= {"--labels": "labels.txt"} if "--labels" not in more else {}
    Path("labels.txt").write_text(
        "" if more[0] == "--data" and more[1] == "three" else "\n".join(output_names())
    )
    if more[1] == "three":
        base.pop("--labels")
    arguments = [word for pair in (base | {more[0]: more[1]}).items() for word in pair]
    for dry in ((), ("--dry-run",)):
        assert main(["guard", *arguments, *PIXELS, *dry]) == 2
        assert message in capsys.readouterr().err
        assert not Path("g").exists()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(desk, tmp_path, capsys):
    assert guard(desk, tmp_path / "guard", *PIXELS, "--dry-run", "--cache", str(tmp_path / "cache")) == 0
    told = capsys.readouterr().out
    assert "4 classes, images of" in told
    assert f"Would make a guard for {desk / 'net.pt2'} of the pictures in {desk / 'photos'}" in told
    assert not list(tmp_path.iterdir())


def test_a_command_asks_for_what_it_lacks(capsys):
    assert main(["guard", "--data", "photos"]) == 2
    assert "Which network?" in capsys.readouterr().err
    assert main(["guard", "--model", "timm:x"]) == 2
    assert "Which pictures?" in capsys.readouterr().err
