"""What arms of a comparison may differ in, how they may be called, and what is taken of an arm's run."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oodream.cli.main import main
from oodream.comparisons import COMPARISONS
from oodream.config import Config, EvaluateConfig, RegularizeConfig
from oodream.core.files import read_json, write_json
from oodream.core.options import ConfigError
from oodream.core.results import ShiftRow, write_rows
from oodream.data.source import DataSource
from oodream.run.arms import checked_arms, own_redo, read_arms, shared_options
from oodream.run.artifacts import Run
from oodream.run.compare import cells, measured_arm
from oodream.run.folder import RunDir
from oodream.run.job import Job
from oodream.run.layout import BASELINE, REGULARIZED
from tests.helpers.begun import begin_run
from tests.helpers.page import row
from tests.helpers.rows import control_row, shift_row
from tests.helpers.runs import command, plain

SHARED = {
    "data": "elsewhere", "root": "elsewhere", "classes": "cifar10", "unknown": ["shirt"], "max_per_class": 5,
    "ood": ["elsewhere"], "shifted": ["elsewhere"], "validate": ["shirt"], "size": 64, "white": 1.0,
    "seed": 7, "seeds": 3, "device": "cpu", "evaluate.n_far": 5, "evaluate.ood_ratio": 0.2,
    "evaluate.fpr95_nearest": True, "evaluate.resamples": 5, "shift.n_corrupted": 5,
}  # fmt: skip
REAL = {"outliers": "real", "real": "world"}
READ = DataSource.read


def test_an_arm_whose_first_detector_was_left_out_says_so(tmp_path):
    run = begin_run(tmp_path, Config(evaluate=EvaluateConfig(detectors=("msp", "energy"))))
    write_rows(run.layout.results, [control_row(REGULARIZED, 0.5, 0.1)])
    with pytest.raises(ValueError, match=r"first of --evaluate\.detectors, and 'msp' was left out"):
        measured_arm("a", run, REGULARIZED)


def test_every_shifted_folder_has_cells_of_its_own(tmp_path):
    run = begin_run(tmp_path, Config())
    corrupted = [shift_row(BASELINE, share, 0.1, "blur", i) for i, share in ((1, 0.6), (3, 0.4))]
    night, dusk = (
        shift_row(BASELINE, share, 0.3, name, 0) for name, share in (("night", 0.2), ("dusk", 0.8))
    )

    def accuracies(rows: list[ShiftRow]) -> dict[str, float]:
        write_rows(run.layout.shift_rows, rows)
        values = cells(run, BASELINE, [row(BASELINE, "mean", "all", 0.4)])
        return {name: cell.value for name, cell in values.items() if "shifted accuracy" in name}

    assert accuracies([night, dusk, *corrupted]) == pytest.approx({
        "shifted accuracy": 50, "shifted accuracy (night)": 20, "shifted accuracy (dusk)": 80,
        "shifted accuracy (corruptions)": 50,
    })  # fmt: skip
    assert accuracies([night]) == pytest.approx({"shifted accuracy (night)": 20})
    assert accuracies([]) == {}


def test_these_options_are_shared():
    assert shared_options(Config()).keys() == SHARED.keys(), "say of a new option whether arms share it"


@pytest.mark.parametrize("name", SHARED)
def test_arms_that_could_not_be_compared_are_refused(name, tmp_path, no_preview):
    section, _, key = name.rpartition(".")
    own = {key: SHARED[name]}
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(ConfigError, match=rf"Arm 'b': {name} is .* on the command line \({flag}\)\.$"):
        checked_arms(Config(), {"a": {}, "b": {section: own} if section else own}, tmp_path)
    same = replace(Config(), seed=7)
    assert checked_arms(same, {"a": {"seed": 7}}, tmp_path).configs == {"a": same}


def test_methods_may_differ_in_budget_and_scores(tmp_path, no_preview):
    arms = {
        "wider": {"train": {"backbone": "resnet18", "optimisation": {"epochs": 9}}},
        "by distance": {"evaluate": {"detectors": ["knn"], "detector_options": {"k": 5}}},
        "strict": {"guard": {"alpha": 0.01}},
    }
    assert [*checked_arms(Config(), arms, tmp_path).configs] == [*arms]


def test_what_the_check_of_an_arm_warns_of_is_heard_and_said(shapes, tmp_path):
    arms = {"a": {"regularize": {"ratio": 0.5}}, "long": {"train": {"optimisation": {"min_steps": 600}}}}
    with pytest.warns(UserWarning, match="will be trained for"):
        checked = checked_arms(Config(data=str(shapes), size=32), arms, tmp_path)
    few = {name: any("steps alone" in text for text in texts) for name, texts in checked.warned.items()}
    assert few == {"a": True, "long": False}


def test_detectors_that_were_left_out_are_named(copied):
    file = copied / "scores" / "stage.json"
    stamp = read_json(file)
    stamp["summary"]["regularized-s0"]["skipped"] = {"vim": "too few features."}
    write_json(file, stamp, sealed=True)
    run = Run.open(copied)
    left_out = "the detector vim is left out: too few features."
    assert left_out in measured_arm("a", run, REGULARIZED).warned
    assert left_out not in measured_arm("baseline", run, BASELINE).warned


def given(real: str, arms: dict[str, dict[str, Any]], folder: Path) -> list[str]:
    """The real outliers of the arms where a folder of such is given for all."""
    base = Config(regularize=RegularizeConfig(real=real))
    checked = checked_arms(base, {name: {"regularize": own} for name, own in arms.items()}, folder)
    return [config.regularize.real for config in checked.configs.values()]


def test_a_common_folder_of_real_outliers_is_for_the_arms_that_have_some(tmp_path, no_preview):
    arms = {"imagined": {}, "real": REAL, "named": {"outliers": "real"}, "own": REAL | {"real": "others"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert given("things", arms, tmp_path) == ["", "things", "things", "others"]
        assert given("", {"real": REAL}, tmp_path) == ["world"]
    with pytest.warns(UserWarning, match=r"--regularize\.real things is not used: no arm has real outliers"):
        given("things", {"imagined": {}, "own": arms["own"]}, tmp_path)


def test_options_of_all_arms_are_refused_before_images_are_looked_for(tmp_path):
    """There are no images, which is found later."""
    base = replace(Config(), data=str(tmp_path / "nowhere"), device="cpu")
    arms = {"a": {}, "b": {"regularize": {"ratio": 0.0}}}
    with pytest.raises(ValueError, match=r"Arm 'b': .*ratio must be above 0"):
        checked_arms(base, arms, tmp_path / "arms")
    with pytest.raises(ConfigError, match="There is no stage 'nosuch' in any arm"):
        checked_arms(base, {"a": {}}, tmp_path / "arms", ["nosuch"])


def test_images_are_read_once_for_all_arms(shapes, tmp_path, monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(DataSource, "read", lambda self, size: read.append(size) or READ(self, size))
    others = tmp_path / "others"
    shutil.copytree(shapes / "circle", others)
    options = {"a": {}, "real": {"regularize": {"outliers": "real", "real": str(others)}}, "b": {}}
    arms = checked_arms(replace(Config(), data=str(shapes), seeds=2), options, tmp_path)
    images = [arms.job(name).inputs for name in options]
    assert read == [32]
    assert all(one.train is images[0].train and one.ood is images[0].ood for one in images)
    assert [one.real is None for one in images] == [True, False, True]


@pytest.mark.parametrize("name", ["baseline", "Baseline", " baseline"])
def test_no_arm_is_called_as_the_baseline_is(name):
    with pytest.raises(ValueError, match=f"No arm can be called '{name}'"):
        read_arms(json.dumps({"a": {}, name: {}}))
    assert read_arms('{"baseline, longer": {}}')


@pytest.mark.parametrize("name", ["", " ", "\u3000", ".", "..", "|", "two\nlines", "\ud800", "x" * 101])
def test_names_that_tables_and_folders_cannot_have_are_refused(name):
    with pytest.raises(ValueError, match=r"^No arm can be called '.*: a name has letters or digits"):
        read_arms(json.dumps({"a": {}, name: {}}))
    assert read_arms(json.dumps({"x" * 100: {}, "a | b": {}, "ein Ü": {}}))


@pytest.mark.parametrize("other", ["a_b", "A b"])
def test_two_names_of_one_folder_are_refused(other):
    with pytest.raises(ValueError, match=f"one folder: 'a b' and '{other}'. Name them apart"):
        read_arms(json.dumps({"c": {}, "a b": {}, other: {}}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "dreem-id"], "no comparison 'dreem-id'. Did you mean 'dream-id'? There are: 'demo', "),
        (["--arms", "oal", "--only", "ce+kd"], "no arm 'ce+kd'. Did you mean 'ce + kd'? There are: 'oal', "),
        (
            ["--arms", "dream-id", "--only", "known"],
            "'by name', 'redrawn', 'known, varied', 'known, augmix', ",
        ),
        (["--preset", "fashoin"], "There is no preset 'fashoin'. Did you mean 'fashion'?"),
    ],
)
def test_a_name_that_there_is_not_comes_with_those_there_are(words, said, capsys):
    assert main(["compare", *words]) == 2
    assert said in plain(capsys.readouterr().err)


def stamped(folder: Path) -> dict[str, int]:
    """The stages of a run, and when they were finished."""
    return {stage: (folder / stage / "stage.json").stat().st_mtime_ns for stage in RunDir(folder).stamps()}


def test_a_file_of_arms_that_is_not_there_is_named_with_one_that_is(tmp_path, capsys):
    (tmp_path / "arms.json").write_text("{}")
    assert main(["compare", "--arms", str(tmp_path / "arm.json")]) == 2
    said = plain(capsys.readouterr().err)
    assert f"Nor is there a file {tmp_path / 'arm.json'}. Did you mean '{tmp_path / 'arms.json'}'?" in said


def test_an_arm_whose_option_has_changed_is_made_again_and_no_other(
    finished, shapes, tiny_pipeline, tmp_path, capsys
):
    """As the refusal says, with --redo changed; a stage that is named is made again where there is such a
    one.
    """
    out, arms = tmp_path / "out", tmp_path / "arms.json"
    shutil.copytree(finished, out / "a")
    args = command(shapes, tiny_pipeline, out, "--arms", str(arms), "--preset", "folder")[1:]

    def compared(outliers: int, *more: str) -> int:
        arms.write_text(json.dumps({"a": {}, "b": {"regularize": {"max_outliers": outliers}}}))
        return main(["compare", *args, *more])

    assert compared(5) == 0
    before = {arm: stamped(out / arm) for arm in "ab"}
    capsys.readouterr()
    assert compared(6) == 2
    refused = capsys.readouterr()
    assert "a: " not in refused.out, "arms are checked before the first one starts"
    said = plain(refused.err)
    assert "Arm 'b': " in said
    assert "Add --redo changed to make classifier/regularized-s0 and what depends on it afresh" in said
    assert "the same command again" not in said, "which would be refused again"
    assert compared(6, "--dry-run") == 2
    assert "classifier/regularized-s0 was made from other inputs: regularize.max" in plain(
        capsys.readouterr().out
    )
    assert compared(6, "--redo", "changed", "--dry-run") == 0
    would = plain(capsys.readouterr().out)
    assert would.count("would be made again") == 6
    assert would.count("done before") > would.count("would be made again")
    assert {arm: stamped(out / arm) for arm in "ab"} == before
    assert compared(6, "--redo", "changed") == 0
    after = {arm: stamped(out / arm) for arm in "ab"}
    assert after["a"] == before["a"]
    kept = {stage for stage, at in after["b"].items() if before["b"][stage] == at}
    assert {"align", "images/imagined", "classifier/baseline-s0", "filter"} <= kept
    again = {"classifier/regularized-s0", "scores", "guard", "shift", "audit", "report"}
    assert after["b"].keys() - kept == again
    assert compared(6, "--redo", "images/imaginde") == 2
    said = plain(capsys.readouterr().err)
    assert "There is no stage 'images/imaginde' in any arm. There are: classes, " in said
    assert compared(6, "--redo", "report") == 0
    for arm in "ab":
        assert {stage for stage, at in stamped(out / arm).items() if after[arm][stage] != at} == {"report"}


def test_a_stage_that_some_arms_lack_is_made_again_in_the_others(finished):
    job = Job(Run.open(finished).config, finished)
    assert own_redo(job, ["changed", "latents", "classifier"]) == ["changed", "classifier"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_comparison_can_be_made_of_a_folder(name, shapes, no_preview, capsys):
    """But for arms that need real images of other things."""
    arms = [arm for arm in COMPARISONS[name].arms if arm != "real things"]
    args = ["compare", "--arms", name, "--only", *arms, "--data", str(shapes), "--dry-run"]
    assert main([*args, "--shifted", str(shapes)] if name == "dream-id" else args) == 0
    assert f"with the preset {COMPARISONS[name].folder}." in plain(capsys.readouterr().out)


def test_arms_of_another_preset_say_which_one_they_are_made_for(shapes, capsys):
    arm = ["compare", "--arms", "dream-id", "--only", "by name", "--data", str(shapes), "--dry-run"]
    note = "The comparison 'dream-id' is made for the preset 'folder-id'"
    assert main([*arm, "--preset", "folder"]) == 2
    said = plain(capsys.readouterr().err)
    assert "Arm 'by name': The loss energy_logistic needs outliers, and the sampler gives inliers" in said
    assert note in said
    assert main([*arm, "--regularize.loss", "energy_logistic"]) == 2
    assert note not in plain(capsys.readouterr().err)
