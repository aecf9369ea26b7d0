"""What a run says when it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from oodream.audit.finding import Audit, Finding
from oodream.config import Config, EvaluateConfig, RegularizeConfig
from oodream.core.files import write_json
from oodream.core.results import Row, ShiftRow, write_rows
from oodream.core.types import Json
from oodream.run.artifacts import Run
from oodream.run.headline import headline, headline_detector
from tests.helpers.begun import begin_run, imagine
from tests.helpers.page import row
from tests.helpers.rows import shift_row

RUN = Config(data="/nowhere", size=8, evaluate=EvaluateConfig(detectors=("gmm", "energy")))


def measured(
    run: Run,
    rows: list[Row],
    shift_rows: list[ShiftRow],
    findings: tuple[Finding, ...] = (),
    summary: Json | None = None,
) -> None:
    imagine(run, [Image.new("RGB", (8, 8))] * 2)
    write_rows(run.layout.results, rows)
    write_rows(run.layout.shift_rows, shift_rows)
    write_json(run.layout.audit, Audit(sets={}, findings=findings).to_json())
    run.folder.begin("scores", {})
    run.folder.finish("scores", {}, 1.0, summary or {})


ROWS = [row(kind, "mean", "all", fpr) for kind, fpr in (("baseline", 0.4), ("regularized", 0.1))]


def test_the_headline_compares_both_classifiers(tmp_path):
    run = begin_run(tmp_path, RUN)
    others = [replace(r, detector="msp", fpr95_id=0.9) for r in ROWS] + [
        replace(r, group="near") for r in ROWS
    ]
    again = [replace(r, seed=1, fpr95_id=r.fpr95_id + 0.1) for r in ROWS]
    measured(
        run, ROWS + again + others, [shift_row("baseline", 0.5, 0.2), shift_row("regularized", 0.6, 0.3)]
    )
    assert headline(run) == (
        "On corrupted test images (mean of 1 sets): accuracy 60.0 % (baseline: 50.0 %), "
        "flagged by the energy 30.0 % (20.0 %).\n"
        "Unknown images accepted while 95 % of known ones are: 15.0 % (baseline: 45.0 %).\n"
        "AUROC 95.0 % (80.0 %). Accuracy 90.3 % (90.5 %).\n"
        "Near-unknown images: accepted 10.0 % (40.0 %), AUROC 95.0 % (80.0 %)."
    )


def test_every_shifted_folder_has_a_line_of_its_own(tmp_path):
    """No mean over many corruptions hides what was measured on the user's own images."""
    run = begin_run(tmp_path, RUN)
    corrupted = [
        shift_row(kind, 0.5, 0.1, name, severity)
        for kind in ("baseline", "regularized")
        for name in ("blur", "jpeg")
        for severity in (1, 3)
    ]
    night = [shift_row("baseline", 0.25, 0.0, "night", 0), shift_row("regularized", 0.3, 0.98, "night", 0)]
    dusk = [shift_row(kind, 0.4, 0.2, "dusk", 0) for kind in ("baseline", "regularized")]
    measured(run, ROWS, corrupted + night + dusk)
    assert headline(run).splitlines()[:3] == [
        "On night: accuracy 30.0 % (baseline: 25.0 %), flagged by the energy 98.0 % (0.0 %).",
        "On dusk: accuracy 40.0 % (baseline: 40.0 %), flagged by the energy 20.0 % (20.0 %).",
        "On corrupted test images (mean of 4 sets): accuracy 50.0 % (baseline: 50.0 %), "
        "flagged by the energy 10.0 % (10.0 %).",
    ]


def test_the_headline_hides_no_harm_near_the_classes(tmp_path):
    near = [row("baseline", "mean", "near", 0.3), row("regularized", "mean", "near", 0.6)]
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS + near, [])
    *_, figures, warning = headline(run).splitlines()
    assert figures == "Near-unknown images: accepted 60.0 % (30.0 %), AUROC 70.0 % (85.0 %)."
    assert warning.startswith("They are told apart worse than by the baseline. What was imagined is not")
    assert "try --regularize.outliers known" in warning
    assert warning.endswith("each in a folder of its own (--run FOLDER).")
    known = begin_run(tmp_path / "known", replace(RUN, regularize=RegularizeConfig(outliers="known")))
    measured(known, ROWS + near, [])
    assert headline(known).endswith("worse than by the baseline.")


def test_what_may_be_chance_is_said_to_be_and_advises_nothing(tmp_path):
    ranges = {"baseline": (0.6, 0.75), "regularized": (0.55, 0.7)}
    near = [
        replace(row(kind, "mean", "near", 0.5), auroc=sum(own) / 2, intervals={"auroc": own})
        for kind, own in ranges.items()
    ]
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS + near, [])
    assert headline(run).splitlines()[-1] == (
        "They are told apart worse than by the baseline: the ranges overlap, and this may be chance."
    )


def test_without_shifted_sets_the_headline_is_about_unknown_images(tmp_path):
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS, [])
    assert headline(run).startswith("Unknown images accepted while 95 % of known ones are: 10.0 %")


def test_a_detector_that_was_left_out_makes_no_headline(tmp_path):
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS, [])
    assert headline_detector(run) == "energy"


def found(severity: str, kind: str = "duplicates") -> Finding:
    return Finding(
        kind=kind, sets=("ID/train", "near"), count=3, share=0.3, severity=severity, message="long. Do this."
    )


def test_each_problem_of_the_audit_is_named_once_before_the_numbers(tmp_path):
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS, [], (found("problem"), found("problem", "files"), found("warning"), found("fine")))
    lines = headline(run).replace("\u00a0", " ").splitlines()
    assert lines[:2] == [
        "A problem, says the audit: 30.0 % of “near” show the same as images of “ID/train”.",
        "A problem, says the audit: the files' format, size and compression alone separate “near” from "
        "“ID/train” (AUROC 30.0 %).",
    ]
    assert lines[2].startswith("Unknown images accepted")


@pytest.mark.parametrize(("accuracy", "warned"), [(0.5, True), (0.525, True), (0.8, False)])
def test_accuracy_at_chance_is_said_once_for_both(tmp_path, accuracy, warned):
    run = begin_run(tmp_path, RUN)
    measured(run, [replace(r, accuracy=accuracy) for r in ROWS], [])
    text = (
        "A warning of “baseline”, “regularized”: the accuracy is no better than guessing among 2 classes.\n"
    )
    assert headline(run).startswith(text) == warned
    assert "guessing" not in headline(run).removeprefix(text)


def test_a_first_detector_that_ranks_upside_down_is_named_with_its_seeds(tmp_path):
    run = begin_run(tmp_path, RUN)
    wrong = {"baseline-s0": {"upside_down": {"msp": 0.1}}, "regularized-s1": {"upside_down": {"energy": 0.1}}}
    measured(run, [*ROWS, *(replace(r, seed=1) for r in ROWS)], [], summary=wrong)
    first, *others = headline(run).splitlines()
    assert first.startswith("A warning of “regularized”: energy ranks upside down: ")
    assert first.endswith("known images themselves (in 1 of 2 trainings).")
    assert not any("upside" in line for line in others), "another detector is not the headline's"
