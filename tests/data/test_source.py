"""Classes that are unknown are never trained on, and training images are drawn by class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from oodream.config import Config, EvaluateConfig
from oodream.core.errors import DataError
from oodream.data import images as image_sets
from oodream.data.builtin import DEBIAN
from oodream.data.inputs import DataInputs
from oodream.data.listing import drawn_rows
from oodream.data.sets import SETS
from tests.helpers.pictures import class_folder


def whole(tmp_path: Path) -> Path:
    return class_folder(tmp_path / "data", cat=10, dog=10, fox=10, owl=10)


def with_splits(tmp_path: Path) -> Path:
    class_folder(tmp_path / "data" / "train", cat=10, dog=10, fox=10, owl=10)
    class_folder(tmp_path / "data" / "test", cat=3, dog=3, fox=3, owl=3)
    return tmp_path / "data"


@pytest.fixture(params=[whole, with_splits])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path)


def inputs(data: Path, **options: object) -> DataInputs:
    return DataInputs(Config(data=str(data), size=8, evaluate=EvaluateConfig(n_far=2), **options))


def classes_of(files: tuple[str, ...]) -> set[str]:
    return {Path(file).parent.name for file in files}


def test_unknown_classes_are_the_near_set(data: Path) -> None:
    everything, i = inputs(data), inputs(data, unknown=("owl", "cat"))
    i.check()
    assert i.train.classes == i.test.classes == ("dog", "fox")
    assert classes_of(i.train.files) == classes_of(i.test.files) == {"dog", "fox"}
    unknown = i.ood[0]
    assert (unknown.name, unknown.group) == ("unknown", "near")
    assert unknown.images.labels.tolist() == [-1] * len(unknown.images)
    assert {*unknown.images.files, *i.test.files} == {*everything.test.files}
    assert not {*unknown.images.files} & {*everything.train.files}
    assert unknown.about == "test images of classes that are unknown: cat, owl"


def test_the_other_classes_are_read_as_without_unknown_ones(data: Path) -> None:
    everything, i = inputs(data), inputs(data, unknown=("cat",))
    kept = everything.train.labels > 0
    assert torch.equal(i.train.labels, everything.train.labels[kept] - 1)
    assert i.train.files == everything.train.subset(kept).files


def test_pictures_of_unknown_classes_are_not_opened_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = image_sets.read_or_measure
    monkeypatch.setattr(
        image_sets, "read_or_measure", lambda source, *more: opened.append(str(source)) or read(source, *more)
    )
    i = inputs(with_splits(tmp_path), unknown=("owl",), max_per_class=4)
    assert len(i.train) == 12
    trained = [file for file in opened if "/train/" in file]
    assert len(trained) == 12
    assert not [file for file in opened if "/owl/" in file]


def test_validation_works_on_the_known_classes(data: Path) -> None:
    i = inputs(data, unknown=("owl",), validate=("fox",))
    i.check()
    assert i.train.classes == ("cat", "dog")
    left_out = i.ood[0]
    assert left_out.name == "left-out"
    assert classes_of(left_out.images.files) == {"fox"}
    assert [s.name for s in i.ood] == ["left-out", "shuffled", "inverted", "blended"]


def test_the_samples_own_near_set_stays() -> None:
    config = Config(size=8, unknown=("coat",), evaluate=EvaluateConfig(n_far=2))
    assert [(s.name, len(s.images)) for s in DataInputs(config).ood][:2] == [("unknown", 250), ("near", 500)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown": ("oul",)}, "--unknown names 'oul', .* Did you mean 'owl'"),
        ({"unknown": ("cat", "dog", "fox")}, "At least two classes must remain"),
        ({"unknown": ("cat",), "validate": ("cat",)}, "--unknown and --validate both name cat: "),
        ({"unknown": ("cat",), "validate": ("dog", "owl")}, "At least two classes must remain"),
        ({"unknown": ("cat",), "ood": ("unknown=strange",)}, "Another image set is called 'unknown'"),
    ],
)
def test_bad_names_are_refused_before_a_picture_is_opened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "strange", x=2)
    monkeypatch.setattr(image_sets, "read_or_measure", lambda *_: pytest.fail("read a picture"))
    with pytest.raises(DataError, match=message):
        inputs(data, **options).check()


# At most so many of every class


def test_training_images_are_drawn_by_class(data: Path) -> None:
    everything, some = inputs(data), inputs(data, max_per_class=4)
    assert some.train.labels.bincount().tolist() == [4, 4, 4, 4]
    assert {*some.train.files} < {*everything.train.files}
    assert some.test.files == everything.test.files
    other_seed = inputs(data, max_per_class=4, seed=1) if data.joinpath("train").exists() else None
    assert other_seed is None or other_seed.train.files != some.train.files
    without = inputs(data, max_per_class=4, unknown=("cat",))
    assert {*without.train.files} < {*some.train.files}, "drawn by the class's name alone"
    assert inputs(data, max_per_class=1).train.labels.bincount().tolist() == [1, 1, 1, 1]
    assert inputs(data, max_per_class=99).train.files == everything.train.files


def test_drawn_rows_are_in_order() -> None:
    rows = drawn_rows(torch.tensor([1, 0, 1, 0, 1, 0]), ("a", "b"), 2, seed=0)
    assert rows.tolist() == sorted(rows.tolist())
    assert torch.tensor([1, 0, 1, 0, 1, 0])[rows].bincount().tolist() == [2, 2]


# Named data sets


@pytest.mark.parametrize("name", SETS)
def test_a_named_data_set_says_what_it_is(name: str) -> None:
    if name == "fashion-full" and not DEBIAN.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    data = SETS[name]
    assert data.about
    assert bool(data.holds) or data.root == "none"
    assert data.near(None, 8) == [] or {s.group for s in data.near(None, 8)} == {"near"}
