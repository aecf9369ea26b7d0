"""Folders become the images, labels and names a person would expect, or a clear error."""

from __future__ import annotations

import os
import shutil
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from oodream.config import Config
from oodream.core.errors import DataError
from oodream.data import images as image_sets
from oodream.data.folders import list_folder, load_folder, load_ood
from oodream.data.scan import image_files
from oodream.data.source import DataSource
from tests.helpers.pictures import class_folder, picture, save


def test_class_folders_split_by_seed_and_class(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "pets", cat=10, guinea_pig=2, dog=5)
    train, test = load_folder(folder, 8)
    assert (train.name, test.name) == ("pets-train", "pets-test")
    assert train.classes == test.classes == ("cat", "dog", "guinea pig")
    assert train.labels.bincount().tolist() == [8, 4, 1]
    assert test.labels.bincount().tolist() == [2, 1, 1]
    assert not set(train.files) & set(test.files)
    assert [Path(file).parent.name for file in test.files] == [
        test.classes[i].replace(" ", "_") for i in test.labels
    ]
    red = {"cat": 0, "guinea pig": 40, "dog": 80}
    assert test.batch(range(4))[:, 0, 0, 0].tolist() == [red[test.classes[i]] for i in test.labels]
    assert load_folder(folder, 8)[1].files == test.files
    assert any(load_folder(folder, 8, seed=seed)[1].files != test.files for seed in (1, 2, 3))
    assert load_folder(folder, 8, test_share=0.5)[1].labels.bincount().tolist() == [5, 2, 1]
    folder.rename(tmp_path / "moved")
    assert load_folder(tmp_path / "moved", 8)[1].fingerprint() == test.fingerprint()


@pytest.mark.parametrize("held_out", ["test", "val", "Validation"])
def test_given_splits_are_used(tmp_path: Path, held_out: str) -> None:
    class_folder(tmp_path / "train", a=3, b=2)
    class_folder(tmp_path / held_out, b=1, a=1)
    train, test = load_folder(tmp_path, 8)
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert (test.labels.tolist(), test.classes) == ([0, 1], ("a", "b"))
    class_folder(tmp_path / held_out / "c", nested=1)
    with pytest.raises(DataError, match=r"differ in these classes: c\."):
        load_folder(tmp_path, 8)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    class_folder(tmp_path, train=2, test=2, bus=2)
    with pytest.warns(UserWarning, match="look like splits and are taken as classes: test, train"):
        train, _ = load_folder(tmp_path, 8)
    assert train.classes == ("bus", "test", "train")


@pytest.mark.parametrize("beside", [{"loop": "."}, {"loop": "../data"}, {"loop": ".."}, {"self": "self"}])
def test_links_in_a_loop_beside_class_folders_are_no_classes(tmp_path: Path, beside: dict[str, str]) -> None:
    data = class_folder(tmp_path / "data", cat=3, dog=3)
    for name, target in beside.items():
        (data / name).symlink_to(target)
    assert list_folder(data)[0].classes == ("cat", "dog")


def test_nested_linked_hidden_and_non_ascii(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "d", **{"größe_ä": 2, "日本": 2})
    save(folder / "日本" / "2024" / "mai" / "写真 é.PNG", picture((1, 2, 3), 8, 8))
    save(folder / ".hidden" / "x.png")
    save(folder / "日本" / ".thumbs" / "x.png")
    (folder / "日本" / "._a.png").write_bytes(b"resource fork")
    (folder / "日本" / "notes.txt").write_text("not an image")
    elsewhere = class_folder(tmp_path / "elsewhere", linked=3) / "linked"
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    os.symlink(elsewhere / "000.png", folder / "größe_ä" / "link.png")
    train, test = load_folder(folder, 8)
    assert train.classes == ("größe ä", "linked", "日本")
    assert (train.labels.bincount() + test.labels.bincount()).tolist() == [3, 3, 3]


def test_classes_toml_renames(tmp_path: Path) -> None:
    folder = class_folder(tmp_path, n01=2, n02=2, **{unicodedata.normalize("NFD", "é"): 2})
    (folder / "classes.toml").write_text('[classes]\nn01 = "red fox"\n"é" = "accent"\n', encoding="utf-8")
    assert set(load_folder(folder, 8)[0].classes) == {"red fox", "n02", "accent"}
    for text, message in [
        ('[classes]\nn09 = "x"', "folders that do not exist .*n09"),
        ('[classes]\nn01 = "N02"', "both the class"),
        ("[classes]\nn01 = 3", "folder = "),
        ('[classes]\nn01 = " "', "folder = "),
        ("n01", "cannot be read"),
        ('[names]\nn01 = "x"', r"\[classes\]"),
    ]:
        (folder / "classes.toml").write_text(text)
        with pytest.raises(DataError, match=message):
            load_folder(folder, 8)


def bad(make: Callable[[Path], object], message: str, name: str) -> object:
    return pytest.param(make, message, id=name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        bad(lambda f: f.rmdir(), "is not a folder", "missing"),
        bad(lambda f: (f.rmdir(), f.write_text("")), "is not a folder", "a file"),
        bad(lambda f: None, "is empty", "empty"),
        bad(lambda f: save(f / "a.png"), "has images but no class folders", "flat"),
        bad(lambda f: class_folder(f, cat=4), r"only one class \(cat\)", "one class"),
        bad(lambda f: class_folder(f, cat=4, dog=1), r"fewer than 2 images: dog \(1\)", "single image"),
        bad(lambda f: class_folder(f, cat=4, dog=0), r"fewer than 2 images: dog \(0\)", "no image"),
        bad(lambda f: class_folder(f, guinea_pig=2, **{"Guinea pig": 2}), "both the class", "same name"),
        bad(lambda f: class_folder(f, **{"é": 2, "e\u0301": 2}), "both the class", "same name in unicode"),
        bad(lambda f: class_folder(f, a=2, __=2), "nothing is left", "no name"),
        bad(
            lambda f: (class_folder(f / "train", a=2, b=2), class_folder(f / "test", a=2)),
            "only one class",
            "test of one class",
        ),
    ],
)
def test_bad_folders_say_what_is_wrong_before_any_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    monkeypatch.setattr(image_sets, "read_or_measure", lambda *_: pytest.fail("read an image"))
    with pytest.raises(DataError, match=message) as caught:
        load_folder(folder, 8)
    assert str(folder) in str(caught.value)


def test_a_class_that_only_has_broken_images(tmp_path: Path) -> None:
    folder = class_folder(tmp_path, a=60, b=2)
    for file in image_files(folder / "b"):
        file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="2 of 62"),
        pytest.raises(DataError, match=r"fewer than 2 readable images: b \(0\)"),
    ):
        load_folder(folder, 8)


def test_ood_folder_takes_everything_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folder(tmp_path / "far away", a=2, b=1)
    save(tmp_path / "far away" / "top.jpg")
    images = load_ood(tmp_path / "far away", 8)
    assert (images.name, len(images), set(images.labels.tolist()), images.classes) == (
        "far away",
        4,
        {-1},
        (),
    )
    monkeypatch.chdir(tmp_path / "far away")
    assert load_ood(Path(), 8).name == "far away"
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: no image found"):
        load_ood(tmp_path / "none", 8)
    with pytest.raises(DataError, match="is not a folder"):
        load_ood(tmp_path / "nowhere", 8)


def test_a_class_list_names_the_folders_to_read(tmp_path: Path) -> None:
    class_folder(tmp_path / "data", n1=2, n2=2, n3=2)
    file = tmp_path / "list.toml"
    file.write_text('[classes]\nn1 = "hen"\nn3 = "kite"\n[prompts]\nkite = "kite bird"\n')
    train, test = load_folder(tmp_path / "data", 8, classes=file)
    assert train.classes == test.classes == ("hen", "kite")
    assert len(train) == len(test) == 2
    file.write_text('[classes]\nn1 = "hen"\nn4 = "kite"\n')
    with pytest.raises(DataError, match=r"folders that do not exist.*n4"):
        load_folder(tmp_path / "data", 8, classes=file)
    with pytest.raises(DataError, match=r"lost\.toml cannot be read"):
        load_folder(tmp_path / "data", 8, classes=tmp_path / "lost.toml")
    with pytest.raises(DataError, match=r"a TOML file .* not \('n1', 'n2'\).* unknown="):
        load_folder(tmp_path / "data", 8, classes=("n1", "n2"))


@pytest.mark.parametrize("split", [False, True])
def test_classes_are_left_out_and_images_kept_as_a_run_does(tmp_path: Path, split: bool) -> None:
    for part in ("train", "test") if split else ("",):
        class_folder(tmp_path / "data" / part, a=5, b=10, c=10)
    config = Config(data=str(tmp_path / "data"), unknown=("b",), max_per_class=3, seed=4)
    parts = load_folder(tmp_path / "data", 8, unknown=["b"], max_per_class=3, seed=4)
    for mine, the_runs in zip(parts, DataSource(config).read(8), strict=True):
        assert mine.classes == ("a", "c")
        assert mine.fingerprint() == the_runs.fingerprint()
    assert load_folder(tmp_path / "data", 8, unknown="b")[0].classes == ("a", "c")
    with pytest.raises(DataError, match="No class is called d; there are a, b, c"):
        load_folder(tmp_path / "data", 8, unknown=["d"])


def test_images_without_pixels_are_refused_before_any_is_read(tmp_path: Path) -> None:
    class_folder(tmp_path, a=2, b=2)
    for load in (load_folder, load_ood):
        with pytest.raises(DataError, match=r"Images of 0 pixels .* size is their width and height"):
            load(tmp_path, size=0)


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("TRAIN", "dev"), ("train", "eval"), ("seg_train", "seg_test")],
)
def test_usual_names_of_splits(tmp_path: Path, train: str, test: str) -> None:
    class_folder(tmp_path / train, a=3, b=2)
    class_folder(tmp_path / test, a=1, b=1)
    class_folder(tmp_path / "__MACOSX" / "train", a=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit, held_out = load_folder(tmp_path, 8)
    assert (fit.classes, fit.labels.tolist(), held_out.labels.tolist()) == (
        ("a", "b"),
        [0, 0, 0, 1, 1],
        [0, 1],
    )


def test_test_images_come_before_validation_images(tmp_path: Path) -> None:
    for name, count in (("train", 2), ("val", 3), ("test", 1)):
        class_folder(tmp_path / name, a=count, b=count)
    assert [len(images) for images in load_folder(tmp_path, 8)] == [4, 2]


def test_splits_beside_other_folders_are_used_and_these_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", a=3, b=2)
    class_folder(tmp_path / "test", a=1, b=1)
    class_folder(tmp_path / "single_prediction", x=3)
    with pytest.warns(UserWarning, match="Not read beside them: single_prediction"):
        assert load_folder(tmp_path, 8)[0].classes == ("a", "b")


def test_what_looks_like_splits_and_is_none_is_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", a=3, b=2)
    class_folder(tmp_path / "test", c=2, d=1)
    class_folder(tmp_path / "other", c=2, d=1)
    with pytest.warns(UserWarning, match="look like splits and are taken as classes: test, train"):
        assert load_folder(tmp_path, 8)[0].classes == ("other", "test", "train")


def test_own_run_folders_are_never_classes(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=3, dog=3)
    save(tmp_path / "runs" / "one" / "images" / "imagined" / "a.png")
    (tmp_path / "runs" / "one" / "run.json").write_text('{"config": {}}')
    save(tmp_path / "mine" / "a.png")
    (tmp_path / "mine" / "run.json").write_text('{"config": {}}')
    before = sorted(tmp_path.rglob("*"))
    assert list_folder(tmp_path)[0].classes == ("cat", "dog")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is made in the data"
    shutil.rmtree(tmp_path / "runs" / "one")
    (tmp_path / "runs" / "one").mkdir()
    assert list_folder(tmp_path)[0].classes == ("cat", "dog"), "a run that has not begun"


def test_pictures_beside_the_class_folders_are_named(tmp_path: Path) -> None:
    save(class_folder(tmp_path, cat=2, dog=2) / "stray.png")
    (tmp_path / "bird").symlink_to("/nowhere")
    with pytest.warns(UserWarning, match=r"2 pictures, or links to nothing, .* such as bird"):
        assert list_folder(tmp_path)[0].classes == ("cat", "dog")


@pytest.mark.parametrize("name", ["unknown", "Unknown", "UNKNOWN_"])
def test_no_class_is_called_as_the_answer_for_what_is_unknown(tmp_path: Path, name: str) -> None:
    class_folder(tmp_path, cat=2, **{name: 2})
    with pytest.raises(
        DataError, match=rf"class is called .* write in .*classes\.toml .*'{name}' = "
    ) as caught:
        list_folder(tmp_path)
    (tmp_path / "classes.toml").write_text(f"[classes]\n'{name}' = \"other things\"\n")
    assert list_folder(tmp_path)[0].classes == (
        ("other things", "cat") if name != "unknown" else ("cat", "other things")
    )
    assert str(tmp_path) in str(caught.value)


def test_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = class_folder(tmp_path, cat=2, dog=2)
    for i in range(2):
        os.link(
            folder / "cat" / f"00{i}.png", os.path.join(os.fsencode(folder / "cat"), b"gr\xfcn%d.png" % i)
        )
    train, test = load_folder(folder, 8)
    assert len(train) + len(test) == 6
    assert len(train.identity()) == len(train.fingerprint()) == 32


def test_class_folders_that_are_no_utf8_need_a_name(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=2, dog=2)
    os.rename(tmp_path / "dog", os.path.join(os.fsencode(tmp_path), b"k\xe4se"))
    with pytest.raises(DataError, match=r"bytes that are no UTF-8.*'k\\xe4se' = ") as caught:
        list_folder(tmp_path)
    assert str(caught.value).encode()
    (tmp_path / "classes.toml").write_text("[classes]\n'k\\xe4se' = \"cheese\"\n")
    assert list_folder(tmp_path)[0].classes == ("cat", "cheese")


def test_a_class_list_of_windows_is_read(tmp_path: Path) -> None:
    class_folder(tmp_path, cat=2, dog=2)
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "classes.toml").write_text('[classes]\r\ncat = "lynx"\r\n', encoding=encoding)
        assert list_folder(tmp_path)[0].classes == ("lynx", "dog")


def test_a_folder_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"cannot be opened: Permission denied"):
        list_folder(tmp_path)


def test_photographs_one_level_too_deep_are_hinted_at(tmp_path):
    class_folder(tmp_path / "nest" / "photos", cat=20, dog=20)
    place = tmp_path / "nest" / "photos"
    with pytest.raises(DataError, match=f"only one class .* {place} holds folders of its own: .* name it"):
        load_folder(tmp_path / "nest", 16)
    class_folder(tmp_path / "alone", cat=20)
    with pytest.raises(DataError, match=r"at least two class folders\.$"):
        load_folder(tmp_path / "alone", 16)
