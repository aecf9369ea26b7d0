"""What a configuration names becomes image sets, and its faults are known before a picture is opened."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oodream.config import Config, DecodeConfig, EvaluateConfig, RegularizeConfig, ShiftConfig
from oodream.core.errors import DataError
from oodream.data import images as image_sets
from oodream.data.corruptions import CORRUPTIONS, SEVERITIES
from oodream.data.doodles import DOODLES_WORLD
from oodream.data.inputs import DataInputs, named_folders
from tests.helpers.pictures import class_folder, save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return class_folder(tmp_path / "data", cat=5, dog=5, owl=5)


def inputs(data: Path, **options: object) -> DataInputs:
    few = {"evaluate": EvaluateConfig(n_far=3), "shift": ShiftConfig(n_corrupted=2)}
    return DataInputs(Config(data=str(data), size=8, **{**few, **options}))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "read_or_measure", lambda *_: pytest.fail("read a picture"))


def test_a_run_has_training_test_ood_and_shifted_sets(data: Path, tmp_path: Path) -> None:
    class_folder(tmp_path / "strange", x=2)
    class_folder(tmp_path / "snow", cat=2, fox=2)
    i = inputs(data, ood=(f"near={tmp_path / 'strange'}",), shifted=(str(tmp_path / "snow"),))
    with pytest.warns(UserWarning, match="1 of 2 class folders not measured, .*: fox"):
        i.check()
    assert (len(i.train), len(i.test)) == (12, 3)
    assert [(s.name, s.group, len(s.images)) for s in i.ood] == [
        ("strange", "near", 2),
        *((name, "far", 3) for name in ("digits", "letters", "photos", "textures", "noise")),
    ]
    assert [(s.name, s.group, s.images.labels.tolist()) for s in i.shifted] == [("snow", "shift", [0, 0])]
    names = [(name, severity, len(images)) for name, severity, images in i.shift_sets()]
    assert names == [
        ("snow", 0, 2),
        *((kind, severity, 2) for kind in CORRUPTIONS for severity in SEVERITIES),
    ]


def test_fashion_has_its_near_set() -> None:
    i = DataInputs(Config(size=8, evaluate=EvaluateConfig(n_far=2, ood_ratio=0.001)))
    i.check()
    assert [(s.name, s.group, len(s.images)) for s in i.ood][:2] == [
        ("near", "near", 2),
        ("digits", "far", 2),
    ]


def test_classes_left_out_stand_for_every_test_set(data: Path) -> None:
    i = inputs(data, validate=("owl",))
    i.check()
    assert i.train.classes == i.test.classes == ("cat", "dog")
    assert [s.name for s in i.ood] == ["left-out", "shuffled", "inverted", "blended"]
    assert i.shifted == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validate": ("fox",)}, "No class is called fox"),
        ({"validate": ("cat", "dog")}, "At least two classes must remain"),
        ({"decode": DecodeConfig(prompt="a picture")}, r"must hold \{\} once"),
        ({"ood": ("nowhere",)}, "nowhere is not a folder"),
        ({"ood": ("data",)}, r"OOD folder data holds the known images of data\."),
        ({"ood": (".",)}, "OOD folder . holds the known images"),
        ({"ood": ("empty",)}, "empty: no image found below empty"),
        ({"ood": ("noise=strange",)}, "Another image set is called 'noise'"),
        ({"ood": ("a=strange", "A=data/cat")}, "Another image set is called 'A'"),
        ({"ood": ("strange", "./strange")}, "strange is given twice"),
        ({"shifted": ("strange",)}, "no images in folders called as the known classes are: cat, dog, owl"),
        ({"shifted": ("data",)}, r"shifted folder data holds the known images of data"),
        ({"shifted": (".",)}, "shifted folder . holds the known images"),
        ({"ood": ("near=snow",), "shifted": ("snow",)}, "in snow and the OOD images in snow lie in one"),
        ({"ood": ("near=snow/cat",), "shifted": ("snow",)}, "and the OOD images in snow/cat lie in one"),
        ({"ood": ("strange",), "shifted": ("strange/x",)}, "in strange/x and the OOD images in strange"),
        ({"classes": "cifar"}, "no class list 'cifar'"),
        ({"classes": "list.toml"}, "names folders that do not exist"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_faults_are_known_before_a_picture_is_opened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "strange", x=2)
    class_folder(tmp_path / "snow", cat=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.toml").write_text('[classes]\ncat = "lynx"\nfox = "fox"\n')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        inputs(Path("data"), **options).check()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("option", ["ood", "shifted"])
@pytest.mark.parametrize(("split", "images"), [("train", "training"), ("test", "test")])
def test_a_split_of_the_data_is_no_other_set(tmp_path: Path, option: str, split: str, images: str) -> None:
    for name in ("train", "test"):
        class_folder(tmp_path / name, cat=3, dog=3)
    with pytest.raises(DataError, match=rf"{split} holds the {images} images of .*, and --ood or --shifted"):
        inputs(tmp_path, **{option: (str(tmp_path / split),)}).check()
    class_folder(tmp_path / "val", cat=3, dog=3)
    spare = inputs(tmp_path, **{option: (str(tmp_path / "val"),)})
    spare.check()
    assert len(spare.test) == 6, "a split that is not used may be another set"


def test_an_ood_folder_inside_the_data_is_no_class(data: Path) -> None:
    class_folder(data, near=3)
    save(data / "cat" / "strange" / "a.png")
    i = inputs(data, ood=(f"near={data / 'near'}", f"odd={data / 'cat' / 'strange'}"))
    with pytest.warns(UserWarning, match="not trained on, for --ood .*: cat/strange, near"):
        i.check()
    assert i.train.classes == ("cat", "dog", "owl")
    assert len(i.train) + len(i.test) == 15
    assert [(s.name, s.group, len(s.images)) for s in i.ood][:2] == [
        ("data/near", "near", 3),
        ("odd", "far", 1),
    ]


def real(where: object) -> dict[str, RegularizeConfig]:
    return {"regularize": RegularizeConfig(outliers="real", real=str(where))}


def test_real_outliers_lie_in_folders_of_any_depth(data: Path, tmp_path: Path) -> None:
    class_folder(tmp_path / "others" / "wild", fox=3, lynx=2)
    save(tmp_path / "others" / "hare.png")
    i = inputs(data, **real(tmp_path / "others"))
    i.check()
    assert i.real is not None
    assert sorted(i.real.classes[y] for y in i.real.labels) == ["."] + ["wild/fox"] * 3 + ["wild/lynx"] * 2
    assert inputs(data).real is None


@pytest.mark.parametrize(
    ("regularize", "message"),
    [
        ({"outliers": "real"}, "Which real outliers?"),
        ({"real": "others"}, "takes --regularize.outliers real; it is imagined"),
        ({"outliers": "known", "real": "others"}, "it is known"),
        ({"outliers": "real", "real": "nowhere"}, "nowhere is not a folder"),
        ({"outliers": "real", "real": "empty"}, "real outliers: no image found below empty"),
        ({"outliers": "real", "real": "data"}, "in data and the known images in data lie in one folder"),
        ({"outliers": "real", "real": "data/cat"}, "the known images in data lie in one folder"),
        ({"outliers": "real", "real": "."}, "in one folder"),
        ({"outliers": "real", "real": "strange"}, "and the test images in strange lie in one folder"),
        ({"outliers": "real", "real": "strange/x"}, "the test images in strange lie in one folder"),
        ({"outliers": "real", "real": "link"}, "the test images in strange lie in one folder"),
        ({"outliers": "real", "real": "snow/cat"}, "the test images in snow lie in one folder"),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_real_outliers_that_cannot_be_are_refused_before_a_picture_is_opened(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regularize: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folder(tmp_path / "strange", x=2)
    class_folder(tmp_path / "snow", cat=2)
    class_folder(tmp_path / "others", y=2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "strange")
    options = {"ood": ("near=strange",), "shifted": ("snow",), "regularize": RegularizeConfig(**regularize)}
    with pytest.raises(DataError, match=re.escape(message)):
        inputs(Path("data"), **options).check()


def test_a_data_sets_own_world_stands_in_or_is_missing(data: Path) -> None:
    with pytest.raises(DataError, match=r"data has no collection of other things .* name a folder"):
        inputs(data, **real("world")).check()
    doodles = DataInputs(Config(data="doodles", size=8, **real("world")))
    doodles.check()
    assert doodles.real is not None
    assert len(doodles.real) == 100 * len(DOODLES_WORLD)
    assert set(doodles.real.labels.tolist()) == set(range(len(DOODLES_WORLD))), "what they show has a name"


def test_folders_of_real_outliers_name_no_class(data: Path, tmp_path: Path) -> None:
    class_folder(tmp_path / "others", fox=2, owl=2)
    with pytest.raises(DataError, match=r"this one holds classes of .*: owl"):
        inputs(data, **real(tmp_path / "others")).check()


def folders(top: Path, *names: str) -> None:
    for name in names:
        (top / name).mkdir(parents=True)


def test_sets_are_called_by_their_shortest_distinct_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, "SUN/images", "dtd/images", "a/dtd/images", "textures", "iNaturalist", "x=y")
    options = ("SUN/images", "dtd/images", "a/dtd/images", "iNaturalist", "./textures", "x=y")
    named = named_folders(options, {"textures"}, ("near", "far"))
    top = tmp_path.name
    assert [item.name for item in named] == [
        "SUN/images", f"{top}/dtd/images", "a/dtd/images", "iNaturalist", f"{top}/textures", "x=y",
    ]  # fmt: skip
    assert {item.group for item in named} == {"far"}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("near=SUN", ("SUN", "near")),
        ("far=SUN", ("SUN", "far")),
        ("sun=SUN", ("sun", "far")),
        ("near:sun=SUN", ("sun", "near")),
        ("far:a sun=SUN", ("a sun", "far")),
        ("a:b=SUN", ("a:b", "far")),
    ],
)
def test_names_and_groups_of_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, expected: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, "SUN")
    (item,) = named_folders((option,), {"near"}, ("near", "far"))
    assert (item.name, item.group, item.folder) == (*expected, Path("SUN"))
    (item,) = named_folders(("near=SUN",), ())
    assert (item.name, item.group) == ("near", ""), "shifted sets have no groups"


@pytest.mark.parametrize("slip", ["neer", "nera", "Near", "nearr", "neer:a"])
def test_a_slip_of_a_groups_name_names_no_set(slip: str, tmp_path: Path) -> None:
    said = "names no group that there is. Did you mean 'near'? Write near=FOLDER, near:NAME=FOLDER"
    with pytest.raises(DataError, match=re.escape(said)):
        named_folders((f"{slip}={tmp_path}",), (), ("near", "far"))
    (item,) = named_folders((f"bear={tmp_path}",), (), ("near", "far"))
    assert (item.name, item.group) == ("bear", "far")


@pytest.mark.parametrize("option", ["near=", "", "a=", "near:a="])
def test_an_option_without_a_folder_is_not_the_working_directory(option: str) -> None:
    with pytest.raises(DataError, match="names no folder"):
        named_folders((option,), set(), ("near", "far"))


def test_spans_and_prompts_have_the_class_lists_words(data: Path) -> None:
    (data / "classes.toml").write_text('[classes]\ncat = "kite"\n[prompts]\nkite = "kite bird"\n')
    i = inputs(data, decode=DecodeConfig(prompt="the kite and {}"))
    assert i.prompts(("kite", "dog")) == ("the kite and kite bird", "the kite and dog")
    assert i.prompt_spans(("kite", "dog")) == ((13, 17), (13, 16))


def test_other_sets_have_the_training_images_white(tmp_path: Path) -> None:
    """As for a guard in use, which cannot know the brightest value that will come."""
    for name, value in (("data/a", 3276), ("data/b", 2457), ("dim", 819)):
        for i in range(2):
            save(tmp_path / name / f"{i}.png", Image.fromarray(np.full((8, 8), value, np.uint16)))
    i = inputs(tmp_path / "data", ood=(str(tmp_path / "dim"),))
    assert i.train.white == 4095
    assert i.ood[0].images.batch([0]).unique().tolist() == [51]
    with pytest.warns(UserWarning, match="nearly white"):
        assert inputs(tmp_path / "data", white=819.0).train.batch([0]).unique().tolist() == [255]


def test_a_hub_sets_faults_are_known_before_a_picture_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    images = [b"never opened"] * 4
    rows = datasets.Dataset.from_dict({"image": images, "label": ["unknown", "owl"] * 2}, features=features)
    rows.save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="a class is called 'unknown'"):
        DataInputs(Config(data=f"hub:{tmp_path / 'set'}")).check()
