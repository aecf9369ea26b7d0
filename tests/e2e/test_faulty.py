"""Runs with extensions that fail: each is named, and the others' results stay."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from oodream.cli.main import main
from oodream.core.files import read_json
from oodream.core.types import Output, Terms
from oodream.detection.detectors import BaseDetector
from oodream.run.artifacts import Run
from oodream.training.losses.cross_entropy import CrossEntropy
from tests.helpers.runs import command

# What another option of a run would add to, or does not have.
REPLACED = {"--evaluate.detectors": "--evaluate.detectors", "--sample.sampler": "--sample.options"}


@pytest.fixture
def run(finished, shapes, tiny_pipeline, tmp_path, monkeypatch):
    """Goes on with a copy of a finished run by other options; 0 where that ends well."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))

    def go_on(*options: str) -> int:
        words = command(shapes, tiny_pipeline, folder)
        for option in {*options} & REPLACED.keys():
            at = words.index(REPLACED[option])
            del words[at : next(i for i in range(at + 1, len(words)) if words[i].startswith("--"))]
        return main([*words, "--redo", "changed", *options])

    go_on.folder = folder
    return go_on


@dataclass
class Gone(BaseDetector):
    def _score(self, output: Output) -> Tensor:
        return {}["gone"]


@dataclass
class NotANumber(BaseDetector):
    def _score(self, output: Output) -> Tensor:
        return torch.full((len(output),), torch.nan, dtype=torch.float64)


class OneMask:
    reason = "nobody knows why"

    def __call__(self, images_B3HW, y_B, baseline):
        return torch.tensor([True])


class Vector(CrossEntropy):
    def forward(self, step):
        return Terms(total=super().forward(step).total.repeat(3))


def test_a_bad_detector_is_left_out_and_the_report_is_made(run, capsys):
    assert run("--evaluate.detectors", "energy", f"{__name__}:Gone", "msp") == 0
    skipped = read_json(run.folder / "scores" / "stage.json")["summary"]["regularized-s0"]["skipped"]
    assert list(skipped) == [f"{__name__}:Gone"]
    assert skipped[f"{__name__}:Gone"].startswith("Gone: KeyError: 'gone' (")
    assert {row.detector for row in Run.open(run.folder, plugins=True).rows()} == {"energy", "msp"}
    assert f"the detector {__name__}:Gone is left out: Gone: KeyError" in capsys.readouterr().err
    assert (run.folder / "report" / "index.html").is_file()


def test_where_no_guard_can_be_made_the_detector_is_named_and_what_to_choose(run, capsys):
    guarded = ("--guard.alpha", "0.3", "--until", "guard")
    assert run("--evaluate.detectors", f"{__name__}:NotANumber", "energy", *guarded) == 2
    told = capsys.readouterr().err
    assert f"No guard can be made of the detector '{__name__}:NotANumber': " in told
    assert "--guard.detector" in told
    another = ("--guard.detector", "energy", *guarded)
    assert run("--evaluate.detectors", f"{__name__}:NotANumber", "energy", *another) == 0


@pytest.mark.parametrize(
    ("options", "until", "sentence"),
    [
        (
            ("--sample.sampler", "tests.testing.test_sampler:LongVectors"),
            "vectors",
            "The sampler 'tests.testing.test_sampler:LongVectors': The vectors have unit norm",
        ),
        (
            ("--sample.sampler", "tests.testing.test_sampler:NoCheck"),
            "vectors",
            "The sampler 'tests.testing.test_sampler:NoCheck': A sampler has a method check",
        ),
        (
            ("--filter.filters", f"{__name__}:OneMask"),
            "filter",
            f"The filter '{__name__}:OneMask': It returns a boolean tensor of shape (24,)",
        ),
        (
            ("--regularize.loss", "cross_entropy", f"{__name__}:Vector", "--regularize.outliers", "imagined"),
            "classifier",
            f"The loss {__name__}:Vector: The total is a scalar, not of shape (3,)",
        ),
    ],
)
def test_what_an_extension_gives_is_refused_with_its_name(run, capsys, options, until, sentence):
    assert run(*options, "--until", until) == 2
    assert sentence in capsys.readouterr().err
