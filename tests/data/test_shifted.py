"""Folders of known classes that look otherwise: what is measured, and what is said of all else."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

from oodream.config import Config, EvaluateConfig
from oodream.core.errors import DataError
from oodream.data.classes import find
from oodream.data.inputs import DataInputs
from oodream.data.shifted import list_shifted
from tests.helpers.pictures import class_folder

NAMES = ("circle", "square", "triangle", "star")


def notes(folder: Path, **options: object) -> list[str]:
    """What is said of a shifted folder while it is listed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list_shifted(folder, NAMES, **options)
    return [str(warning.message) for warning in caught]


def test_folders_are_mapped_onto_the_known_classes(shapes, tmp_path):
    folder = tmp_path / "other"
    for name in ("circle", "Star"):
        shutil.copytree(shapes / name.lower(), folder / name)
    shutil.copytree(shapes / "square", folder / "not_a_class")
    names = ("circle", "square", "star")
    with pytest.warns(UserWarning, match="1 of 3 class folders not measured, .*: not_a_class"):
        found = list_shifted(folder, names).read(32)
    assert sorted(found.labels.unique().tolist()) == [0, 2]
    assert len(found) == 40
    (folder / "classes.toml").write_text('[classes]\nnot_a_class = "square"\n')
    assert len(list_shifted(folder, names).rows) == 60


def test_imagenet_v2_and_imagenet_a_folders_belong_to_imagenet_100(tmp_path):
    """V2 calls folders by the index among a thousand classes, A by WordNet ids."""
    names = ("stingray", "hen", "broccoli")
    for folder in ("v2/6", "v2/8", "v2/0", "v2/937", "a/n01498041", "a/n01440764"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), "white").save(tmp_path / folder / "x.png")
    with pytest.warns(UserWarning, match="1 of 4 class folders not measured, .*: 0"):
        v2 = list_shifted(tmp_path / "v2", names, find("imagenet100"))
    assert [names[y] for y in v2.labels] == ["stingray", "hen", "broccoli"]
    with pytest.warns(UserWarning, match="no pictures of these known classes: hen, broccoli"):
        a = list_shifted(tmp_path / "a", names, find("imagenet100"))
    assert [names[y] for y in a.labels] == ["stingray"]


def test_folders_that_are_not_measured_and_classes_without_pictures_are_told(tmp_path):
    class_folder(tmp_path, Circles=1, SQUARE=2, **{"Tri-angle": 1, " star_shape": 1})
    not_measured, missing = notes(tmp_path)
    assert "3 of 4 class folders not measured, for no known class is called so:" in not_measured
    assert "Circles (did you mean 'circle'?), Tri-angle (did you mean 'triangle'?)" in not_measured
    assert " star_shape" in not_measured
    assert "has no pictures of these known classes: circle, triangle, star." in missing
    (tmp_path / "SQUARE").rename(tmp_path / "square")
    (tmp_path / "classes.toml").write_text(
        '[aliases]\nCircles = "circle"\n"Tri-angle" = "Triangle"\n" star_shape" = "star"\n'
    )
    assert notes(tmp_path) == []


def test_folders_of_unknown_classes_are_told_as_such(tmp_path):
    class_folder(tmp_path, circle=1, square=1, triangle=1, star=1, Moon=1)
    (told,) = notes(tmp_path, unknown=("moon", "sun"))
    assert "1 of 5 class folders not measured" in told
    assert "Moon (an unknown class)" in told
    (tmp_path / "classes.toml").write_text('[classes]\nMoon = "sun"\n')
    assert "Moon (an unknown class)" in notes(tmp_path, unknown=("moon", "sun"))[0]


@pytest.mark.parametrize("table", ["classes", "aliases"])
def test_a_name_of_no_class_in_the_folders_own_list_is_refused(tmp_path, table):
    class_folder(tmp_path, a=1, square=1)
    (tmp_path / "classes.toml").write_text(f'[{table}]\na = "circel"\n')
    with pytest.raises(DataError, match=rf"\[{table}\] names 'circel', .* Did you mean 'circle'\?"):
        list_shifted(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"Circles": 1, "x": 1}, "are: circle, square, triangle, star. There are Circles (did you mean"),
        ({"Circles": 1, "x": 1}, "a table [classes] with lines such as 'Circles' = \"name\"."),
        ({"Circles": 1}, "or in a list that --classes names"),
        ({"train": 1, "Test": 1}, "Splits are not looked into: name one of them"),
        ({"train": 1, "Test": 1}, "/Test."),
        ({"train": 1, "val": 1}, "/val."),
        ({"circle": 0}, "Put the images of each class into a folder that is called as the class."),
        ({}, "Put the images of each class into a folder"),
    ],
)
def test_a_folder_in_which_nothing_matches_says_what_there_is(tmp_path, folders, message):
    class_folder(tmp_path, **folders)
    with pytest.raises(DataError, match=re.escape(message)):
        list_shifted(tmp_path, NAMES)


def test_the_list_beside_the_data_and_the_folders_own_name_folders(tmp_path):
    """Folder names and aliases of the data's list count, and the folder's own list goes before it."""
    data = class_folder(tmp_path / "data", n01=5, dog=5, owl=5)
    (data / "classes.toml").write_text('[classes]\nn01 = "cat"\n[aliases]\nmops = "dog"\nuhu = "owl"\n')
    night = class_folder(tmp_path / "night", n01=1, mops=2, uhu=3)
    config = Config(data=str(data), size=8, shifted=(str(night),))
    assert DataInputs(config).shifted[0].images.labels.tolist() == [0, 0, 1, 2, 2, 2]
    (night / "classes.toml").write_text('[classes]\nuhu = "cat"\n')
    with pytest.warns(UserWarning, match="no pictures of these known classes: owl"):
        assert DataInputs(config).shifted[0].images.labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_no_two_sets_have_one_name(tmp_path):
    """The audit and the report know sets by name."""
    data = class_folder(tmp_path / "data", cat=5, dog=5)
    class_folder(tmp_path / "a" / "night", x=2)
    class_folder(tmp_path / "b" / "night", cat=2, dog=2)
    options = {
        "data": str(data),
        "size": 8,
        "evaluate": EvaluateConfig(n_far=2),
        "ood": (str(tmp_path / "a" / "night"),),
    }
    i = DataInputs(Config(**options, shifted=(str(tmp_path / "b" / "night"),)))
    assert {"night", "b/night"} <= {item.name for item in (*i.ood, *i.shifted)}
    with pytest.raises(DataError, match="Another image set is called 'night'"):
        DataInputs(Config(**options, shifted=(f"night={tmp_path / 'b' / 'night'}",))).check()
