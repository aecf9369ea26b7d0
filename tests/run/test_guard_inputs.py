"""What is held out for a guard: pictures that the network was not trained on, as far as that is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oodream.config import Config
from oodream.core.errors import DataError
from oodream.data.inputs import DataInputs
from oodream.data.listing import Listing
from oodream.run.guard_inputs import GuardInputs, GuardJob
from tests.helpers.begun import begin_run
from tests.helpers.guarded import classifier, save_clothes


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    save_clothes(folder, 400)
    return folder


def trained(folder: Path, config: Config) -> Path:
    """A run's baseline classifier."""
    run = begin_run(folder / "run", config)
    classifier().save(run.layout.classifier("baseline", 0))
    return run.layout.classifier("baseline", 0)


def files(listing: Listing) -> set[str]:
    return {*listing.read(12).files}


def inputs(tmp_path: Path, model: str, photos: Path) -> GuardInputs:
    return GuardInputs(GuardJob(model=model, data=str(photos), out=tmp_path / "g", cache=tmp_path, alpha=0.3))


def test_of_a_runs_images_its_test_images_are_held_out(photos: Path, tmp_path: Path) -> None:
    config = Config(data=str(photos), size=12, seed=3)
    given = inputs(tmp_path, str(trained(tmp_path, config)), photos)
    theirs = DataInputs(config)
    assert files(given.parts.fit) == {*theirs.train.files}
    assert files(given.parts.choose) | files(given.parts.held_out) == {*theirs.test.files}
    assert given.has_splits


def test_classes_that_a_run_does_not_know_are_left_out(photos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in photos.iterdir())
    config = Config(data=str(photos), size=12, unknown=(names[0],))
    assert inputs(tmp_path, str(trained(tmp_path, config)), photos).classes == tuple(names[1:])


def test_what_a_run_knows_is_not_unknown(photos: Path, tmp_path: Path) -> None:
    """A class's folder is, where the run left the class out itself."""
    one = sorted(photos.iterdir())[0]
    job = GuardJob(model="", data=str(photos), out=tmp_path / "g", cache=tmp_path, alpha=0.3, ood=(str(one),))
    config = Config(data=str(photos), size=12)
    with pytest.warns(UserWarning, match="not known"), pytest.raises(DataError, match="trained on as known"):
        GuardInputs(replace(job, model=str(trained(tmp_path, config))))
    model = str(trained(tmp_path / "without", replace(config, unknown=(one.name,))))
    with pytest.warns(UserWarning, match="not known"):
        assert one.name not in GuardInputs(replace(job, model=model)).classes


@pytest.mark.parametrize("of_run", [True, False])
def test_other_networks_and_other_images_have_no_split(photos: Path, tmp_path: Path, of_run: bool) -> None:
    save_clothes(tmp_path / "others", 300)
    model = str(trained(tmp_path, Config(data=str(photos), size=12))) if of_run else "resnet8"
    given = inputs(tmp_path, model, tmp_path / "others")
    assert not given.has_splits
