"""DREAM-ID through the command line: inliers beside real images, accuracy on shifted sets."""

from __future__ import annotations

import shutil
from statistics import fmean

import pytest
import torch

from oodream.cli.main import main
from oodream.core.files import read_json, read_json_lines
from oodream.data.corruptions import CORRUPTIONS, SEVERITIES
from oodream.data.shifted import list_shifted
from oodream.models.classifier import load_classifier
from oodream.run.artifacts import Run
from oodream.run.compare import measured_arm
from oodream.run.layout import REGULARIZED
from tests.helpers.runs import command

INLIERS = ("--sample.options", "kind=inlier")


@pytest.fixture(scope="module")
def finished(shapes, tiny_pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inliers")
    other = folder / "seen-elsewhere"
    shutil.copytree(shapes / "star", other / "star")
    shutil.copytree(shapes / "circle", other / "moon")  # no class is called so
    more = (
        *INLIERS,
        "--regularize.loss",
        "cross_entropy",
        "--regularize.ratio",
        "1",
        "--shifted",
        str(other),
    )
    assert main(command(shapes, tiny_pipeline, folder / "run", *more)) == 0
    return folder / "run"


def test_a_run_of_inliers(finished):
    lines = read_json_lines(finished / "images" / "imagined" / "metadata.jsonl")
    assert {line["kind"] for line in lines} == {"inlier"}
    assert read_json(finished / "filter" / "stage.json")["summary"]["kept"] == 24
    log = read_json(finished / "classifier" / "regularized-s0" / "log.json")
    assert "energy" not in log[0]
    assert (
        read_json(finished / "classifier" / "regularized-s0" / "classifier.json")["loss"] == "cross_entropy"
    )


def test_a_comparison_takes_its_accuracy_under_shift(finished):
    arm = measured_arm("in", Run.open(finished), REGULARIZED)
    assert (arm.kind, arm.count) == ("inlier", 24)
    rows = read_json_lines(finished / "shift" / "accuracy.jsonl")
    own = [row for row in rows if row["classifier"] == REGULARIZED]
    corrupted, folder = (
        [row["accuracy"] for row in own if bool(row["severity"]) == is_so] for is_so in (True, False)
    )
    mean = 100 * fmean([fmean(corrupted), *folder])  # all corruptions weigh as much as a folder
    assert arm.by_seed["shifted accuracy"] == pytest.approx((mean,))
    assert arm.by_seed["accuracy"] == pytest.approx((arm.cells["accuracy"].value,))
    assert [*arm.cells][:7] == [
        "accuracy", "shifted accuracy", "shifted flagged", "shifted accuracy (seen-elsewhere)",
        "shifted flagged (seen-elsewhere)", "shifted accuracy (corruptions)", "shifted flagged (corruptions)",
    ]  # fmt: skip
    assert arm.cells["shifted accuracy (seen-elsewhere)"].value == pytest.approx(100 * folder[0])
    assert arm.cells["shifted accuracy (corruptions)"].value == pytest.approx(100 * fmean(corrupted))


def test_accuracy_is_measured_on_every_shifted_set(finished):
    rows = read_json_lines(finished / "shift" / "accuracy.jsonl")
    assert len(rows) == 2 * (1 + len(CORRUPTIONS) * len(SEVERITIES))
    assert {row["n"] for row in rows if row["severity"]} == {12}
    assert [row["n"] for row in rows if not row["severity"]] == [20, 20]  # the stars
    for row in rows:
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
    classifier = load_classifier(finished / "classifier" / "regularized-s0")
    stars = list_shifted(finished.parent / "seen-elsewhere", classifier.names, None).read(32)
    flagged = [prediction.flagged for prediction in classifier(stars, torch.device("cpu"))]
    (row,) = [row for row in rows if row["classifier"] == "regularized" and not row["severity"]]
    assert row["flagged"] == pytest.approx(fmean(flagged))


def test_the_report_speaks_of_accuracy(finished):
    page = (finished / "report" / "index.html").read_text()
    assert "of the images in seen-elsewhere correctly" in page
    assert "of corrupted images" in page
    assert "Imagined inliers" in page
    assert "Under shift" in page
    assert "What it answers in seen-elsewhere" in page
    assert page.count("truth: star<") >= 3


def test_every_shifted_set_is_summed_up_by_itself(finished):
    summary = read_json(finished / "shift" / "stage.json")["summary"]
    kinds = ("baseline-s0", "regularized-s0")
    sets = ("seen-elsewhere", "corruptions")
    assert [*summary][:4] == [f"{kind} on {name}" for kind in kinds for name in sets]
    assert read_json(finished / "audit" / "audit.json")["sets"]["seen-elsewhere"] == "shift"


def test_augmented_known_images_stand_in_their_place(copied, shapes, tiny_pipeline):
    known = ("--regularize.outliers", "known", "--regularize.known-transform", "augmix")
    more = (*INLIERS, "--regularize.loss", "cross_entropy", "--regularize.ratio", "1", *known)
    assert main(command(shapes, tiny_pipeline, copied, *more, "--redo", "changed")) == 0
    log = read_json(copied / "classifier" / "regularized-s0" / "stage.json")
    assert log["summary"]["inliers"] == 24
    page = (copied / "report" / "index.html").read_text()
    assert "beside known images, augmix, in place of imagined inliers" in page
    assert "of corrupted images correctly" in page


def test_drifted_inliers_can_be_dropped(copied, shapes, tiny_pipeline, capsys):
    more = (
        *INLIERS,
        "--regularize.loss",
        "cross_entropy",
        "--regularize.ratio",
        "1",
        "--filter.options",
        "threshold=1.0",
    )
    assert main(command(shapes, tiny_pipeline, copied, *more, "--redo", "changed")) == 2
    message = "The filters kept no inlier: sample nearer to (a higher cosine) the classes"
    assert message in capsys.readouterr().err


def test_a_loss_for_outliers_is_refused(shapes, tiny_pipeline, tmp_path, capsys):
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", *INLIERS)) == 2
    assert "energy_logistic needs outliers, and the sampler gives inliers" in capsys.readouterr().err
    assert not (tmp_path / "run" / "classes").exists()


def test_a_shifted_folder_without_a_known_class_is_refused(shapes, tiny_pipeline, tmp_path, capsys):
    shutil.copytree(shapes / "star", tmp_path / "other" / "dog")
    assert main(command(shapes, tiny_pipeline, tmp_path / "run", "--shifted", str(tmp_path / "other"))) == 2
    assert "no images in folders called as the known classes are" in capsys.readouterr().err
