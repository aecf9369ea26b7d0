"""Whole runs through the command line, on real components, tiny."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from oodream.cli.console import Command
from oodream.cli.main import COMMANDS, main
from oodream.core.files import read_json, read_json_lines
from oodream.core.tensors import load_tensors
from oodream.data.inputs import DataInputs
from oodream.functional.metrics import auroc
from oodream.models.inference import Extractor
from oodream.run.artifacts import Run
from oodream.run.folder import RunDir
from tests.faults.child import cpu_seconds
from tests.helpers.runs import command, images_of, plain

STAGES = (
    "classes",
    "align",
    "features",
    "vectors",
    "images/imagined",
    "strips",
    "images/control",
    "images/reconstructed",
    "classifier/baseline-s0",
    "filter",
    "classifier/regularized-s0",
    "scores",
    "guard",
    "shift",
    "audit",
    "report",
)


def test_a_run_leaves_what_the_design_says(finished):
    for stage in STAGES:
        stamp = read_json(finished / stage / "stage.json")
        assert 0 < stamp["summary"]["memory"] < 1e11
        assert not (finished / stage / "begun.json").exists()
    lines = read_json_lines(finished / "images" / "imagined" / "metadata.jsonl")
    assert len(lines) == 24
    keys = {"row", "class", "prompt", "anchor", "seed", "knn_distance", "cosine_to_class", "pipeline", "hash"}
    for line in lines:
        assert (finished / "images" / "imagined" / line["file_name"]).is_file()
        assert keys <= line.keys()
        assert len(line["words"]) == 3
    rows = read_json_lines(finished / "results.jsonl")
    assert {row["classifier"] for row in rows} == {"baseline", "regularized"}
    sets = {"digits", "letters", "photos", "textures", "noise", "reconstructed", "mean"}
    assert {row["dataset"] for row in rows} == sets
    run = read_json(finished / "run.json")
    assert run["format"] == 2
    assert run["config"]["sample"]["per_class"] == 8
    assert run["git"] is None or len(run["git"].removesuffix("+changes")) == 40
    page = (finished / "report" / "index.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "circle" in page
    assert "95 % of known images are accepted" in page  # too few test images for a guard


def test_the_imagefolder_is_readable_by_datasets(finished):
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(finished / "images" / "imagined"), split="train"
    )
    assert len(loaded) == 24
    assert loaded[0]["image"].size == (32, 32)
    assert "prompt" in loaded.column_names


def test_every_training_says_what_it_does_on_test_images(finished):
    """The summary's numbers, computed once more from what lies in the run."""
    run = Run.open(finished)
    test = DataInputs(run.config).test
    for kind, seed in run.classifiers:
        extractor = run.classifier(kind, seed).extractor()
        output, control = extractor(test), extractor(run.reconstructed("test"))
        summary = run.stamp(f"classifier/{kind}-s{seed}")["summary"]
        right = (output.logits_BC.argmax(1) == test.labels).double().mean().item()
        scores = [-x.logits_BC.logsumexp(1) for x in (output, control)]
        assert summary["accuracy"] == pytest.approx(right, abs=1e-4)
        assert summary["reconstructed_id_auroc"] == pytest.approx(auroc(*scores), abs=1e-4)


def test_running_again_does_nothing(finished, shapes, tiny_pipeline, capsys):
    before = {
        p: p.stat().st_mtime_ns
        for p in finished.rglob("*")
        if p.is_file() and p.name not in ("run.json", ".lock")
    }
    assert main(command(shapes, tiny_pipeline, finished)) == 0
    assert capsys.readouterr().out.count("done before") == len(STAGES)
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(finished, shapes, tiny_pipeline, tmp_path):
    """SIGKILL at several moments, wherever the run then is; `tests.faults` has the quick form."""
    run = tmp_path / "killed"
    args = [sys.executable, "-m", "oodream", *command(shapes, tiny_pipeline, run)]
    marks = [
        "align/begun.json",
        "images/imagined/circle-0/000003.png",
        "classifier/regularized-s0/begun.json",
    ]
    for mark in marks:
        process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (run / mark).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(command(shapes, tiny_pipeline, run)) == 0
    assert images_of(run) == images_of(finished)
    assert (run / "results.jsonl").read_text() == (finished / "results.jsonl").read_text()
    for kind in ("baseline", "regularized"):
        a, b = (load_tensors(r / "classifier" / f"{kind}-s0" / "model.safetensors") for r in (run, finished))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_half_decoded_images_are_completed(copied, finished, shapes, tiny_pipeline):
    stamp = copied / "images" / "imagined" / "stage.json"
    inputs = read_json(stamp)["inputs"]
    stamp.unlink()
    (stamp.parent / "begun.json").write_text(json.dumps(inputs))
    gone = sorted((copied / "images" / "imagined").rglob("*.png"))[::3]
    for file in gone:
        file.unlink()
    assert main(command(shapes, tiny_pipeline, copied, "--until", "images")) == 0
    assert images_of(copied) == images_of(finished)


def test_interrupt_says_how_to_go_on(shapes, tiny_pipeline, tmp_path):
    run = tmp_path / "stopped"
    args = [sys.executable, "-m", "oodream", *command(shapes, tiny_pipeline, run)]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (run / "align" / "begun.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command again" in errors
    assert "Traceback" not in errors


def test_an_interrupt_that_python_dropped_stops_after_the_stage(monkeypatch, capsys):
    from oodream.cli.console import Interrupts, say

    monkeypatch.setattr(Interrupts, "seen", False)  # and again so after the test
    say("one")
    with pytest.raises(KeyboardInterrupt):
        Interrupts.handle()
    with pytest.raises(KeyboardInterrupt):
        say("two")
    assert capsys.readouterr().out == "one\ntwo\n"


def test_changed_inputs_are_refused_and_redo_makes_them(copied, shapes, tiny_pipeline, capsys):
    assert main(command(shapes, tiny_pipeline, copied, "--sample.options", "cosine=0.5")) == 2
    message = capsys.readouterr().err
    assert "vectors was made from other inputs" in message
    assert "--redo changed to make vectors" in message
    args = ["--filter.options", "threshold=0.99", "--redo", "filter"]
    assert main(command(shapes, tiny_pipeline, copied, *args)) == 0
    out = capsys.readouterr().out
    assert "images/imagined          done before" in out
    assert read_json(copied / "filter" / "stage.json")["inputs"]["filter"]["options"] == {"threshold": 0.99}


def test_redo_changed_makes_only_what_depends_on_the_change(copied, shapes, tiny_pipeline, capsys):
    args = command(shapes, tiny_pipeline, copied, "--sample.options", "cosine=0.5", "--redo", "changed")
    assert main(args) == 0
    out = capsys.readouterr().out
    assert out.count("done before") == 6  # classes, align, features, control, reconstructions, baseline
    assert "vectors                  done before" not in out
    assert main(args) == 0
    assert capsys.readouterr().out.count("done before") == len(STAGES)


def lines_of(capsys) -> dict[str, str]:
    """What a dry run said of each stage."""
    said = capsys.readouterr().out.splitlines()
    return {words[0]: words[1].strip() for line in said if len(words := line.split(maxsplit=1)) == 2}


def test_a_dry_run_names_the_stages_and_why_they_would_be_made_again(copied, shapes, tiny_pipeline, capsys):
    changed = ["--sample.options", "cosine=0.5", "--dry-run"]
    before = {file: file.stat().st_mtime_ns for file in copied.rglob("*")}
    assert main(command(shapes, tiny_pipeline, copied, *changed, "--redo", "changed")) == 0
    plan = lines_of(capsys)
    assert [stage for stage in STAGES if plan[stage] == "done before"] == [
        "classes", "align", "features", "images/control", "images/reconstructed", "classifier/baseline-s0",
    ]  # fmt: skip
    assert plan["vectors"].startswith("would be made again: sample.options.cosine: ")
    assert plan["images/imagined"] == "would be made again: it comes after vectors"
    assert main(command(shapes, tiny_pipeline, copied, *changed)) == 2  # as without --dry-run
    said = capsys.readouterr()
    assert "was made from other inputs: sample.options.cosine: " in said.out
    assert "--redo changed to make vectors" in said.err
    assert main(command(shapes, tiny_pipeline, copied, "--redo", "audit", "--dry-run")) == 0
    plan = lines_of(capsys)
    assert (plan["shift"], plan["audit"]) == ("done before", "would be made again: --redo audit")
    assert before == {file: file.stat().st_mtime_ns for file in copied.rglob("*")}, "nothing is written"


def test_a_dry_run_of_a_new_run_and_of_missing_data(shapes, tiny_pipeline, tmp_path, capsys):
    run = tmp_path / "new"
    until = ["--until", "vectors", "--dry-run"]
    assert main(command(shapes, tiny_pipeline, run, *until)) == 0
    plan = lines_of(capsys)
    assert [stage for stage in STAGES if plan.get(stage) == "would be made"] == list(STAGES[:4])
    assert main(command(tmp_path / "nowhere", tiny_pipeline, run, "--dry-run")) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not run.exists()


def test_validation_reads_no_test_image(shapes, tiny_pipeline, tmp_path):
    run = tmp_path / "validation"
    assert main(command(shapes, tiny_pipeline, run, "--validate", "star", "--reconstruct.frac", "0")) == 0
    rows = read_json_lines(run / "results.jsonl")
    assert {row["dataset"] for row in rows} == {
        "left-out",
        "shuffled",
        "inverted",
        "blended",
        "reconstructed",
        "mean",
    }
    assert read_json(run / "classes" / "classes.json")["names"] == ["circle", "square"]


def test_a_full_disk_in_the_middle_of_a_run(finished, shapes, tiny_pipeline, tmp_path):
    """The shell's limit on file sizes stands for the full disk: small files can be written and large ones
    fail half-way.
    """
    run = tmp_path / "full"
    oodream = shlex.join([sys.executable, "-m", "oodream", *command(shapes, tiny_pipeline, run)])
    limited = f"ulimit -f 150; trap '' XFSZ; exec {oodream}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert f"A limit on file sizes is reached at {run / 'align'}" in done.stderr
    assert (run / "classes" / "stage.json").exists()
    assert not list(run.rglob("*.tmp*"))
    assert main(command(shapes, tiny_pipeline, run)) == 0
    assert images_of(run) == images_of(finished)


def test_changed_images_are_refused(copied, shapes, tiny_pipeline, tmp_path, capsys):
    other = Path(shutil.copytree(shapes, tmp_path / "other" / "shapes"))
    next((other / "star").iterdir()).unlink()
    assert main(command(other, tiny_pipeline, copied)) == 2
    assert "--redo changed to make align" in capsys.readouterr().err


def test_a_run_that_is_held_is_refused(finished, shapes, tiny_pipeline, capsys):
    with RunDir(finished).locked():
        assert main(command(shapes, tiny_pipeline, finished)) == 2
    assert "Another oodream process" in capsys.readouterr().err


def test_ood_folders_are_measured_in_their_group(copied, shapes, tiny_pipeline, tmp_path):
    folder = tmp_path / "strange things"
    shutil.copytree(shapes / "star", folder / "nested")
    args = command(shapes, tiny_pipeline, copied, "--ood", f"near={folder}", "--redo", "scores")
    assert main(args) == 0
    rows = read_json_lines(copied / "results.jsonl")
    assert {row["group"] for row in rows if row["dataset"] == "strange things"} == {"near"}
    assert any(row["dataset"] == "mean" and row["group"] == "near" for row in rows)


def test_threshold_accepts_the_stated_share(finished):
    run = Run.open(finished)
    predictions = list(run.classifier()(DataInputs(run.config).test, torch.device("cpu")))
    accepted = [not p.flagged for p in predictions]
    assert sum(accepted) / len(accepted) >= 0.95
    assert sum(accepted) - 1 < 0.95 * len(accepted), "and not one more than it takes"
    assert all((p.answer == p.likeliest) == (p.score <= p.threshold) for p in predictions)
    by_score, by_phi = (sorted(predictions, key=key) for key in (lambda p: p.score, lambda p: -p.known))
    assert by_score == by_phi, "phi falls with the score"


def test_score_says_a_class_or_unknown(finished, shapes, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [
        str(shapes / "circle"),
        str(shapes / "star" / "00.png"),
        str(tmp_path / "broken.png"),
    ]
    assert main(["score", *images, "--run", str(finished), "--json"]) == 2
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 21
    assert lines[-1]["file"] == images[1]
    assert all(
        line["answer"] in ("circle", "square", "star", "unknown") and 0 <= line["known"] <= 1
        for line in lines
    )
    assert "broken.png cannot be read" in err
    assert main(["score", *images, str(tmp_path / "none.png"), "--run", str(finished), "--json"]) == 2
    out, err = capsys.readouterr()
    assert "none.png" in err
    assert not out
    assert main(["score", images[1], "--run", str(finished / "classifier" / "baseline-s0")]) == 0
    assert "threshold" in capsys.readouterr().out
    assert main(["score", images[1], "--run", str(tmp_path)]) == 2
    assert "holds no classifier" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--decode.source", "/nowhere"], "no decoder folder /nowhere"),
        (["--sample.options", "k=400"], "Class 'circle' has 16 images; the 400-th neighbour needs 401"),
        (["--sample.sampler", "knnn"], "Did you mean 'knn'"),
        (["--regularize.loss", "energy-logistic"], "Did you mean 'energy_logistic'"),
        (["--train.backbone", "resnet9"], "resnet8"),
        (["--evaluate.detectors", "enrgy"], "Did you mean 'energy'"),
        (["--decode.prompt", "a picture"], "decode.prompt"),
        (["--device", "cuda"], "CUDA"),
        (["--until", "dreaming"], "There is no stage 'dreaming'"),
        (["--preset", "fashon"], "There is no preset"),
        (["--ood", "/nowhere"], "/nowhere is not a folder"),
        (["--redo", "report", "--until", "classes"], "--redo report comes after --until classes"),
        (["--sample.options", "candidtes=3"], "no option 'candidtes'. Did you mean 'candidates'"),
        (["--ood", "nearr=SHAPES"], "names no group that there is"),
        (["--seeds", "0"], "seeds must be at least 1, not 0"),
        (["--sample.options", "k=3.5"], "k cannot be 3.5; it takes"),
        (["--evaluate.detector-options", "mahalanobis.ridge=many"], "mahalanobis"),
        (["--evaluate.detectors", "energy", "energy"], "'energy' is named twice"),
        (["--train.optimisation.batch", "-1"], "batch must be at least 1, not -1"),
        (["--align.temperature", "0"], "temperature must be above 0, not 0.0"),
        (["--decode.prompt", "a {} on a {surface}"], "decode.prompt"),
        (["--guard.detector", "knn"], "guard.detector is 'knn', which is not evaluated"),
    ],
)
def test_what_can_be_known_is_refused_before_any_work(shapes, tiny_pipeline, tmp_path, capsys, more, message):
    if more == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    more = [word.replace("SHAPES", str(shapes)) for word in more]
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", *more)) == 2
    assert message in plain(capsys.readouterr().err)
    assert not (tmp_path / "run" / "classes").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["circle"], "only one class"),
        (["circle", "\u732b\u732b"], "does not know the class name '\u732b\u732b'"),
        (["circle", "red circle blue star " * 6], "Shorten the class name"),
    ],
)
def test_class_names_that_cannot_work(shapes, tiny_pipeline, tmp_path, capsys, names, message):
    for name in names:
        shutil.copytree(shapes / "circle", tmp_path / "data" / name.strip())
    assert main(command(tmp_path / "data", tiny_pipeline, tmp_path / "run")) == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_run_folder(shapes, tiny_pipeline, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(shapes, tiny_pipeline, tmp_path / "file" / "run")) == 2
    assert "file" in capsys.readouterr().err


def test_config_file_and_its_mistakes(shapes, tiny_pipeline, tmp_path, capsys, no_preview):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"sample": {"per_clas": 3}}))
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", "--config", str(file))) == 2
    assert "no option 'sample.per_clas'. Did you mean 'per_class'" in capsys.readouterr().err
    file.write_text(json.dumps({"seed": 5, "sample": {"options": {"cosine": 0.7}}}))
    assert main(["run", "--data", str(shapes), "--config", str(file), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert '"seed": 5' in plan
    assert '"cosine": 0.7' in plan


def test_help_is_quick_and_imports_nothing_heavy():
    heavy = "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    code = f"import sys; from oodream.cli.main import main; main(['--help']); {heavy}"
    for args in (["-c", code], ["-m", "oodream", "run", "--help"]):
        began = cpu_seconds()
        subprocess.run(
            [sys.executable, *args],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "COLUMNS": "100"},
        )
        assert cpu_seconds() - began < 5  # it takes one; the imports above are the real gate


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"], ["run", "--help"]])
def test_a_reader_that_has_read_enough_is_no_error(words):
    """As `head` is one."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "oodream", *words], stdout=out, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_unknown_command_and_version(capsys):
    assert main(["dreem"]) == 2
    assert "there is no command 'dreem'" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert main(["list"]) == 0
    assert "energy_logistic" in capsys.readouterr().out
    assert main(["doctor"]) == 0


def test_words_of_the_class_list_stand_in_the_prompts(shapes, tiny_pipeline, tmp_path, capsys):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    (data / "classes.toml").write_text('[classes]\nstar = "star"\n[prompts]\nstar = "blue star"\n')
    args = command(data, tiny_pipeline, tmp_path / "run", "--until", "classes")
    assert main(args) == 0
    told = read_json(tmp_path / "run" / "classes" / "classes.json")
    assert told["prompts"] == [
        f"A high-quality image of the {name}" for name in ("circle", "square", "blue star")
    ]
    listed = tmp_path / "list.toml"
    listed.write_text('[classes]\ncircle = "circle"\nstar = "red star"\n')
    assert main([*args, "--classes", str(listed)]) == 2
    assert "--redo changed to make classes" in capsys.readouterr().err
    assert main([*args, "--classes", str(listed), "--redo", "changed"]) == 0
    assert read_json(tmp_path / "run" / "classes" / "classes.json")["names"] == ["circle", "red star"]


def test_both_classifiers_begin_with_given_weights(finished, shapes, tiny_pipeline, tmp_path, capsys):
    init = finished / "classifier" / "baseline-s0"
    run = tmp_path / "run"
    args = command(
        shapes,
        tiny_pipeline,
        run,
        "--train.init",
        str(init),
        "--train.optimisation.lr",
        "1e-9",
        "--until",
        "classifier",
    )
    assert main(args) == 0
    a, *others = (
        load_tensors(folder / "model.safetensors")
        for folder in (init, *(run / "classifier" / f"{k}-s0" for k in ("baseline", "regularized")))
    )
    for b in others:
        assert torch.allclose(a["head.weight"], b["head.weight"], atol=1e-5)
    assert main([*args, "--train.init", str(tmp_path / "none.safetensors")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_folder_of_somebody_elses_is_no_run(shapes, tiny_pipeline, tmp_path, capsys):
    """Whatever its folders are called: files there would be removed as a run's."""
    (tmp_path / "mine" / "report").mkdir(parents=True)
    thesis = tmp_path / "mine" / "report" / "thesis.txt"
    thesis.write_text("years of work")
    for more in ((), ("--redo", "report"), ("--dry-run",)):
        assert main(command(shapes, tiny_pipeline, tmp_path / "mine", *more)) == 2
        assert f"{tmp_path / 'mine'} is no run, and holds something: report." in capsys.readouterr().err
    assert main(command(shapes, tiny_pipeline, shapes)) == 2
    assert "is no run, and holds something" in capsys.readouterr().err
    for place in (thesis, thesis / "run"):
        assert main(command(shapes, tiny_pipeline, place)) == 2
        assert f"{thesis} is a file, and no folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["report", "thesis.txt"]


def test_a_note_is_said_once(capsys, monkeypatch):
    def command(args: Sequence[str]) -> int:
        for note in ("dark", "dark", "far"):
            warnings.warn(note, stacklevel=1)
        return 0

    monkeypatch.setitem(COMMANDS, "list", Command(about="", run=command))
    for _ in range(2):
        assert main(["list"]) == 0
        assert capsys.readouterr().err == "  note: dark\n  note: far\n"


def test_an_option_given_several_times_keeps_all_its_values(capsys, no_preview):
    args = "--ood near=a --size 64 --ood=b c --preset demo --validate coat --ood d --seed 3 --dry-run"
    assert main(["run", *args.split()]) == 0
    told = capsys.readouterr().out
    config = json.loads(told[: told.rindex("}") + 1])
    assert config["ood"] == ["near=a", "b", "c", "d"]
    assert (config["validate"], config["size"], config["seed"]) == (["coat"], 64, 3)


@pytest.mark.usefixtures("no_preview")
def test_values_that_begin_with_a_dash_follow_an_equals_sign(capsys):
    args = "--unknown=-minus star --unknown=--x --validate b --unknown c --root=-r --dry-run"
    assert main(["run", "--data", "photos", *args.split()]) == 0
    told = capsys.readouterr().out
    config = json.loads(told[: told.rindex("}") + 1])
    assert config["unknown"] == ["-minus", "star", "--x", "c"]
    assert (config["validate"], config["root"]) == (["b"], "-r")
    assert main(["run", "--unknown", "star", "-minus", "--dry-run"]) == 2
    assert "is written with an equals sign: --unknown=-minus\n" in capsys.readouterr().err
    assert main("guard --model m --data d --mean=-0.5 -1 -0.25 --dry-run".split()) == 0


def test_a_class_of_a_folder_is_unknown(shapes, tiny_pipeline, tmp_path):
    """The run neither trains on the class nor draws it, and measures it as near-OOD."""
    run = tmp_path / "run"
    assert main(command(shapes, tiny_pipeline, run, "--unknown", "star", "--max-per-class", "12")) == 0
    result = Run.open(run)
    assert "star" not in result.book.names
    assert result.features.y_N.bincount().tolist() == [12] * len(result.book.names)
    near = {row.dataset for row in result.rows() if row.group == "near"}
    assert near == {"unknown", "mean"}
    assert "test images of classes that are unknown: star" in (run / "report" / "index.html").read_text()


def test_outputs_that_a_classifiers_stage_has_made_are_not_made_again(shapes, tiny_pipeline, tmp_path):
    run_folder = tmp_path / "run"
    stage = "classifier/baseline-s0"
    assert main(command(shapes, tiny_pipeline, run_folder, "--until", stage)) == 0
    run = Run.open(run_folder)
    inputs, classifier = DataInputs(run.config), run.classifier("baseline", 0)

    def refuse(*_):
        raise AssertionError("an output was made again")

    extractor = Extractor(classifier.network, cache=run.layout.cache, compute=refuse)
    assert len(extractor(inputs.test)) == len(inputs.test)
    assert len(extractor(run.reconstructed("test"))) > 0
    with pytest.raises(AssertionError, match="an output was made again"):
        extractor(inputs.train)
