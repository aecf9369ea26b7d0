"""What is said of a finished stage, and of one that was made from something else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.errors import DataError, StoreError
from oodream.core.options import overlay
from oodream.run.artifacts import Run
from oodream.run.folder import RunDir, StageChanged
from oodream.run.job import Job
from oodream.run.plan import Plan
from oodream.run.runner import in_words, of_other_data, planned
from tests.helpers.begun import begin_run
from tests.helpers.runs import command


def test_a_stages_line_leaves_out_what_is_not_there():
    summary = {"threshold": 1.5, "guarantee": "at most 5 %", "other_half": None, "skipped": {}, "bytes": 0}
    assert in_words(summary) == "threshold 1.5, guarantee: at most 5 %, bytes 0"
    assert in_words({"other_half": 26 / 840}) == "other half 0.031"
    lacking = "alpha 0.05 takes 59 known test images to guarantee, and there are 12"
    assert in_words({"none": lacking}) == f"none: {lacking}"


def test_what_no_stage_has_asked_for_is_not_imported():
    """A finished run, and one that is refused, are not to wait for it."""
    code = "import sys, oodream.run.runner; assert not {'sklearn', 'scipy', 'diffusers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_of_another_folder_of_the_same_name_is_said_to_be_one(tmp_path):
    """And not to be a run whose images have changed."""
    begin_run(tmp_path / "photos", Config(data="/first/photos"))
    for data, start in (("/second/photos", f"{tmp_path}/photos is a run of /first/photos, and --data is "),
                        ("/first/photos", "stale")):  # fmt: skip
        job = Job(Config(data=data, device="cpu"), tmp_path / "photos")
        with pytest.raises(StageChanged) as caught, of_other_data(job):
            raise StageChanged("stale")
        assert str(caught.value).startswith(start)
        assert str(caught.value).endswith("stale")


@pytest.mark.parametrize(
    ("until", "redo", "options", "said"),
    [
        ("filtre", (), {}, "There is no stage 'filtre'. Did you mean 'filter'? There are: classes, align, "),
        ("report", ("nosuch",), {}, "There is no stage 'nosuch'. There are: classes, align, "),
        ("filter", ("scores",), {}, "--redo scores comes after --until filter"),
        ("report", (), {"regularize": {"ratio": 0.0}}, "regularize.ratio must be above 0"),
        ("report", (), {"guard": {"detector": "nosuch"}}, "guard.detector is 'nosuch'"),
        ("report", (), {"filter": {"filters": ["nosuch"]}}, "No filter is called 'nosuch'"),
        ("report", (), {"train": {"backbone": "nosuch"}}, "'nosuch'"),
    ],
)  # fmt: skip
def test_options_are_refused_before_images_are_looked_for(until, redo, options, said, tmp_path):
    """There are no images, which is found later."""
    given = {"data": str(tmp_path / "nowhere"), "device": "cpu", "decode": {"source": "nowhere"}}
    job = Job(overlay(overlay(Config(), given), options), tmp_path / "run")
    with pytest.raises(ValueError, match=re.escape(said)):
        planned(job, until, redo)
    with pytest.raises(DataError, match="nowhere"):
        planned(Job(overlay(Config(), given), tmp_path / "run"), "report", ())


def test_a_place_where_no_run_can_be_is_refused_before_images_are_looked_for(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(StoreError, match="Choose another place"):
            planned(Job(Config(data=str(tmp_path / "nowhere"), device="cpu"), place), "report", ())


def test_a_mark_that_a_killed_process_left_behind_goes(copied, shapes, tiny_pipeline):
    mark = copied / "scores" / "begun.json"
    mark.write_text("{}")
    assert main(command(shapes, tiny_pipeline, copied)) == 0
    assert not mark.exists()


def test_the_mark_of_an_unfinished_stage_stays(copied, shapes, tiny_pipeline):
    """What lies in its folder belongs to the inputs in the mark, even if a command does not come to it."""
    (copied / "report" / "stage.json").unlink()
    inputs = Plan(Job(Run.open(copied).config, copied)).inputs["report"]
    RunDir(copied).begin("report", inputs)
    assert main(command(shapes, tiny_pipeline, copied, "--until", "audit")) == 0
    assert (copied / "report" / "begun.json").exists()
    long_ago = time.time() - 1000
    os.utime(copied / "report" / "begun.json", (long_ago, long_ago))
    assert main(command(shapes, tiny_pipeline, copied)) == 0
    assert Run.open(copied).stamp("report")["seconds"] > 900
