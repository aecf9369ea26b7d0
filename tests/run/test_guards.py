"""Guards that are saved from a run."""

from __future__ import annotations

import pytest
from PIL import Image

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.errors import StoreError
from oodream.core.results import write_rows
from oodream.data.inputs import DataInputs
from oodream.deploy.guard import Guard
from oodream.run.artifacts import Run
from oodream.run.guard_images import images_of_run
from oodream.run.guards import guard_rows, measurements, save_guard
from tests.helpers.begun import begin_run
from tests.helpers.guarded import SIZE, clothes, save_clothes, save_run
from tests.helpers.page import row


@pytest.fixture
def run(tmp_path) -> Run:
    """A run with a guard of the detector "energy", and rows of it and of others."""
    run = begin_run(save_run(tmp_path / "run"), Config(data="/nowhere"))
    run.folder.finish("guard", {"detector": "energy"}, 1, {})
    rows = [
        row(kind, "digits", "far", 0.25, detector=name)
        for kind in ("baseline", "regularized")
        for name in ("energy", "msp")
    ]
    write_rows(run.layout.results, rows)
    return run


def test_a_saved_guard_answers_as_the_runs_at_that_alpha(run):
    moved = run.guard().at(0.2)
    folder, new = save_guard(run.folder.path, moved)
    assert new
    assert folder.parent == run.folder.path / "guards"
    saved, asked = Guard.load(folder), clothes()[1].batch(range(50))
    assert saved.guarantee == moved.guarantee
    assert saved.predict(asked) == moved.predict(asked)
    assert saved.predict(asked) != run.guard().predict(asked), "the run's own has another threshold"


def test_what_is_there_already_is_not_written_again(run):
    folder, _ = save_guard(run.folder.path, run.guard().at(0.2))
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert save_guard(run.folder.path, run.guard().at(0.2)) == (folder, False)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert save_guard(run.folder.path, run.guard().at(0.1))[1], "another alpha has another folder"


def test_nothing_is_written_behind_a_link(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.folder.path / "guards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="leads out of"):
        save_guard(run.folder.path, run.guard(), measurements(run))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_card_has_the_runs_numbers_of_this_guard(run):
    assert guard_rows(run) == [], "nothing has been measured yet"
    run.folder.finish("scores", {"sets": {}}, 1, {})
    assert [(one.classifier, one.detector) for one in guard_rows(run)] == [("regularized", "energy")]
    folder, _ = save_guard(run.folder.path, run.guard(), measurements(run))
    assert "0.25" in (folder / "README.md").read_text()


def test_integers_take_the_images_that_the_guard_was_made_of(tmp_path, capsys):
    photos = save_clothes(tmp_path / "photos", 400)
    config = Config(data=str(photos), size=SIZE)
    run, inputs = begin_run(save_run(tmp_path / "run"), config), DataInputs(config)
    made_of = {"images": inputs.train.fingerprint(), "test": inputs.test.fingerprint(), "detector": "energy"}
    run.folder.finish("guard", made_of, 1, {})
    assert len(images_of_run(run).held_out) == len(inputs.test)
    for file in photos.rglob("*.png"):
        Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    assert main(["export", str(run.folder.path), "--out", str(tmp_path / "x"), "--int8"]) == 2
    assert f"images in {photos} have changed since the guard" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
