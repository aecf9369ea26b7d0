"""What a run teaches detectors that use outliers, and how it is shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oodream import Run
from oodream.config import TrainConfig
from oodream.core.errors import DataError, StoreError
from oodream.core.files import read_json
from oodream.core.tensors import load_tensors
from oodream.data.images import from_array
from oodream.run.job import Job
from oodream.run.lessons import beside_others, lesson_of, own_lesson, run_of
from oodream.run.sources import shown_sources
from oodream.training.batches import as_shown
from tests.helpers.runs import images_of


def whole(images):
    return images.batch(range(len(images)))


def job_of(run: Path) -> Job:
    return Job(Run.open(run).config, run)


def altered(run: Path, to: Path, **config) -> Path:
    """A copy of a run whose configuration says something else."""
    shutil.copytree(run, to)
    manifest = read_json(to / "run.json")
    for name, value in config.items():
        manifest["config"][name] = value
    (to / "run.json").write_text(json.dumps(manifest))
    return to


def test_both_kinds_are_shown_as_training_shows_them(finished):
    job = job_of(finished)
    known, reconstructed, beside = shown_sources(job)
    lesson = own_lesson(job)
    assert torch.equal(whole(lesson.outliers), whole(as_shown(beside, 0)))
    assert [len(part) for part in lesson.known] == [len(known.data), round(0.25 * len(known.data))]
    assert torch.equal(whole(lesson.known[0]), whole(as_shown(known, 0)))
    assert torch.equal(lesson.known[0].labels, known.data.labels)
    for shown, raw in ((lesson.outliers, beside.data), (lesson.known[0], known.data)):
        changed = (whole(shown) != whole(raw)).flatten(1).any(1)
        assert changed.double().mean() > 0.6  # softened with a probability of 0.75
    assert beside.soften == known.soften == reconstructed.soften == job.config.train.soften == 0.75


def test_outliers_are_lent_what_the_vae_loses_of_known_images(finished):
    job = job_of(finished)
    *_, beside = shown_sources(job)
    plain = replace(beside, soften=0.0, grayscale_prob=0.0, outlier_aug_prob=0.0)
    rows = load_tensors(job.layout.reconstructed("train"))["rows"]
    lost = whole(job.inputs.train.subset(rows)).int() - whole(job.run.reconstructed("train")).int()
    for shown, drawn in zip(whole(as_shown(plain, 0)), whole(plain.data), strict=True):
        expected = (drawn.int() + lost).clamp(0, 255)
        assert (expected == shown.int()).flatten(1).all(1).any()


def test_another_network_sees_both_kinds_in_the_runs_size():
    """Known images are reduced to it, softened and enlarged again; outliers are enlarged."""
    g = torch.Generator().manual_seed(0)
    drawn = from_array(
        "drawn", torch.randint(0, 256, (6, 3, 4, 4), generator=g).to(torch.uint8), torch.zeros(6), ()
    )
    pixels = torch.randint(0, 256, (10, 3, 16, 16), generator=g).to(torch.uint8)
    fit = from_array("fit", pixels, torch.arange(10) % 2, ("a", "b"))

    def lesson_for(fit, soften: float = 0.0):
        return beside_others(
            drawn, [""] * 6, fit, size=4, train=TrainConfig(soften=soften), seed=0, remark="of a run"
        )

    lesson = lesson_for(fit)
    (known,) = lesson.known
    assert (lesson.remark, lesson.outliers.size, known.size) == ("6 of a run", 16, 16)
    assert torch.equal(known.labels, fit.labels)
    fine = torch.fft.rfft2(whole(fit).float() - 127.5).abs()[..., 3:14, 3:].mean()
    for images in (known, lesson.outliers):
        assert torch.fft.rfft2(whole(images).float() - 127.5).abs()[..., 3:14, 3:].mean() < fine / 2
    softened = lesson_for(fit, soften=1.0).known[0]
    assert (whole(softened) != whole(known)).flatten(1).any(1).all()
    small = from_array("small", pixels[..., :3, :3], fit.labels, ("a", "b"))
    assert torch.equal(whole(lesson_for(small).known[0]), whole(small))


def test_outliers_that_show_what_the_network_knows_do_not_teach():
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4).clone()
    drawn = from_array("drawn", pixels, torch.zeros(5), ())
    fit = from_array("fit", pixels[:2], torch.arange(2), ("golden_retriever", "fire engine"))
    names = ("Golden Retrievers", "retriever", "tench", "engine", "fir")
    options = {"size": 4, "train": TrainConfig(soften=0.0), "seed": 0, "remark": "of a run"}
    lesson = beside_others(drawn, names, fit, **options)
    assert whole(lesson.outliers)[:, 0, 0, 0].tolist() == [2, 4]
    assert lesson.remark == "2 of a run (3 that show a class by name are left out)"
    with pytest.raises(DataError, match="All outliers show classes that this network knows: of a run"):
        beside_others(drawn, ["fire"] * 5, fit, **options)


def test_a_run_whose_own_images_are_gone_teaches_without_detail(finished, tmp_path):
    run = Run.open(altered(finished, tmp_path / "run", data=str(tmp_path / "gone")))
    fit = job_of(finished).inputs.train
    lesson = lesson_of(run, fit)
    assert "without the detail of known images, for these cannot be read" in lesson.remark
    assert str(tmp_path / "gone") in lesson.remark
    assert len(lesson.outliers) == int(run.keep_mask.sum())
    there = lesson_of(Run.open(finished), fit)
    assert there.remark == f"{len(there.outliers)} outliers of {finished}, shown as its training shows them"


def test_a_run_without_images_of_outliers_is_refused(finished, tmp_path):
    known = {**json.loads((finished / "run.json").read_text())["config"]["regularize"], "outliers": "known"}
    run = Run.open(altered(finished, tmp_path / "run", regularize=known))
    with pytest.raises(
        StoreError, match=r"There are no images of outliers in .*: known images, altered in training"
    ):
        lesson_of(run, job_of(finished).inputs.train)


def test_a_run_is_known_by_its_folder_and_by_that_of_its_images(finished, tmp_path):
    assert images_of(finished)
    for folder in (finished, finished / "images" / "imagined"):
        run = run_of(folder)
        assert run is not None
        assert run.folder.path.resolve() == finished.resolve()
    assert run_of(finished / "images" / "control") is None
    assert run_of(tmp_path) is None
