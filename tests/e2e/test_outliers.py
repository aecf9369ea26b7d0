"""A run whose outliers teach a detector, too: which ones, and which runs have none to teach with."""

from __future__ import annotations

import torch

from oodream import Run
from oodream.cli.main import main
from oodream.core.files import read_json, write_json
from oodream.core.tensors import load_tensors, save_tensors
from oodream.data.inputs import DataInputs
from oodream.detection.detectors import state
from oodream.detection.detectors.outlier_probe import OutlierProbe
from oodream.detection.fit import training_outputs
from oodream.run.job import Job
from oodream.run.layout import KINDS, Layout
from oodream.run.lessons import own_lesson
from tests.helpers.runs import command

DETECTORS = ("--evaluate.detectors", "outlier_probe")  # beside those of the command
GUARD = ("--guard.detector", "outlier_probe", "--guard.alpha", "0.3")


def test_the_kept_images_teach_it_and_nothing_before_is_made_again(finished, copied, shapes, tiny_pipeline):
    mask = Layout(copied).keep_mask
    save_tensors(mask, {**load_tensors(mask), "keep": torch.arange(24) % 3 > 0})
    stamp = read_json(mask.with_name("stage.json"))
    write_json(mask.with_name("stage.json"), {**stamp, "hashes": {}})  # as if this were what was filtered
    before = {file: file.stat().st_mtime_ns for file in (copied / "classifier").rglob("*")}
    assert main(command(shapes, tiny_pipeline, copied, *DETECTORS, *GUARD, "--redo", "changed")) == 0
    assert {file: file.stat().st_mtime_ns for file in (copied / "classifier").rglob("*")} == before
    opened, old = Run.open(copied), Run.open(finished).rows()
    assert [row for row in opened.rows() if row.detector != "outlier_probe"] == old
    assert {row.classifier for row in opened.rows() if row.detector == "outlier_probe"} == {*KINDS}

    detector, lesson = opened.guard().detector, own_lesson(Job(opened.config, copied))
    assert len(lesson.outliers) == 16
    inputs, extractor = DataInputs(opened.config), opened.classifier().extractor()
    expected = state(training_outputs(extractor, [detector], inputs.train, lesson).fit(OutlierProbe()))
    assert all(torch.equal(state(detector)[key], value) for key, value in expected.items())


def test_a_run_of_latents_leaves_it_out_and_says_why(shapes, tiny_pipeline, tmp_path, capsys):
    run = tmp_path / "latents"
    latents = ("--decode.output", "latents", "--latents.options", "steps=5")
    args = command(shapes, tiny_pipeline, run, *latents, *DETECTORS, "--until", "scores")
    assert main(args) == 0
    why = "it learns from images of outliers, and this run's outliers are latents (decode.output)"
    assert f"the detector outlier_probe is left out: {why}" in " ".join(capsys.readouterr().err.split())
    summary = read_json(run / "scores" / "stage.json")["summary"]
    assert summary["regularized-s0"]["skipped"] == {"outlier_probe": why}
    assert "outlier_probe" not in {row.detector for row in Run.open(run).rows()}
