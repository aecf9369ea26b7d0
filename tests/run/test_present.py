"""What a run's report and headline are made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oodream.config import Config, EvaluateConfig, RegularizeConfig, ReportConfig
from oodream.core.results import Row, ShiftRow, row_to_json
from oodream.core.tensors import save_tensors
from oodream.report.content import FilterCount
from oodream.run.artifacts import Run
from oodream.run.present import GALLERY_PER_CLASS, filtered, gallery, headline, headline_detector
from tests.helpers.begun import begin_run, imagine
from tests.helpers.clouds import clouds, images
from tests.helpers.page import row

RUN = Config(
    data="/nowhere",
    size=8,
    report=ReportConfig(max_classes=1),
    evaluate=EvaluateConfig(detectors=("gmm", "energy")),
)


class Inputs:
    """Two training images."""

    train = images(clouds(2, 3, size=8))


def measured(run: Run, rows: list[Row], shift_rows: list[ShiftRow]) -> None:
    for file, lines in ((run.layout.results, rows), (run.layout.shift_rows, shift_rows)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{row_to_json(line)}\n" for line in lines))


def shift_row(classifier: str, accuracy: float, flagged: float) -> ShiftRow:
    return ShiftRow(
        classifier=classifier, seed=0, dataset="blur", severity=1, accuracy=accuracy, flagged=flagged,
        interval=(0.1, 0.9), n=10,
    )  # fmt: skip


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
        "On shifted sets of known classes: accuracy 60.0 % (50.0 %), flagged 30.0 % (20.0 %).\n"
        "Unknown images accepted while 95 % of known ones are: 15.0 % (baseline: 45.0 %).\n"
        "AUROC 95.0 % (80.0 %). Accuracy 90.3 % (90.5 %).\n"
        "Near-unknown images: accepted 10.0 % (40.0 %), AUROC 95.0 % (80.0 %)."
    )


def test_the_headline_hides_no_harm_near_the_classes(tmp_path):
    near = [row("baseline", "mean", "near", 0.3), row("regularized", "mean", "near", 0.6)]
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS + near, [])
    *_, figures, warning = headline(run).splitlines()
    assert figures == "Near-unknown images: accepted 60.0 % (30.0 %), AUROC 70.0 % (85.0 %)."
    assert warning.startswith("They are told apart worse than by the baseline. What was imagined is not")
    known = begin_run(tmp_path / "known", replace(RUN, regularize=RegularizeConfig(outliers="known")))
    measured(known, ROWS + near, [])
    assert headline(known).endswith("worse than by the baseline.")


def test_without_shifted_sets_the_headline_is_about_unknown_images(tmp_path):
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS, [])
    assert headline(run).startswith("Unknown images accepted while 95 % of known ones are: 10.0 %")


def test_a_detector_that_was_left_out_makes_no_headline(tmp_path):
    run = begin_run(tmp_path, RUN)
    measured(run, ROWS, [])
    assert headline_detector(run) == "energy"


@pytest.fixture
def imagined(tmp_path) -> Run:
    """Twenty images of the first of two classes, the second of which a filter dropped."""
    run = begin_run(tmp_path, RUN)
    imagine(run, clouds(20, 0, size=8))
    dropped_by = torch.full((20,), -1)
    dropped_by[1] = 0
    save_tensors(run.layout.keep_mask, {"keep": dropped_by < 0, "dropped_by": dropped_by})
    run.folder.finish("filter", {}, 0.1, {"reasons": ["it looks like its class"]})
    return Run.open(tmp_path)


def test_the_gallery_joins_images_with_their_provenance(imagined: Run):
    shown = gallery(imagined, Inputs(), None)
    assert [item.row for item in shown] == [*range(GALLERY_PER_CLASS)]
    assert [item.dropped for item in shown[:3]] == ["", "it looks like its class", ""]
    assert torch.equal(shown[5].image_3HW, imagined.images.batch([5])[0])
    assert torch.equal(shown[5].anchor_3HW, Inputs.train.batch([1])[0])
    assert (shown[5].anchor_file, shown[5].seed) == ("/data/5.png", 5)


def test_counts_of_the_filter_are_those_of_its_mask(imagined: Run):
    assert filtered(imagined) == {
        "coat": FilterCount(imagined=20, kept=19),
        "shoe": FilterCount(imagined=0, kept=0),
    }


def test_stamps_come_in_the_order_of_the_work(tmp_path: Path):
    folder = begin_run(tmp_path, RUN).folder
    for i, stage in enumerate(("classes", "images/imagined", "align")):
        folder.finish(stage, {}, float(i), {})
    assert [(name, stamp["seconds"]) for name, stamp in folder.stamps().items()] == [
        ("classes", 0.0),
        ("images/imagined", 1.0),
        ("align", 2.0),
    ]
