"""Data sets of the hub, from copies on this disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from oodream.core.errors import DataError
from oodream.data import images
from oodream.data.hub import load_hub
from tests.helpers.pictures import class_folder, picture


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The package `datasets`, which asks no network: environment variables come too late where another test
    has imported it.
    """
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    return datasets


def test_hub_set_saved_to_disk(tmp_path: Path, offline) -> None:  # type: ignore[no-untyped-def]
    def rows(count: int):  # type: ignore[no-untyped-def]
        features = offline.Features(
            {"img": offline.Image(), "fine_label": offline.ClassLabel(names=["red_fox", "owl"])}
        )
        images = [picture((i, 0, 99), 8, 8) for i in range(count)]
        return offline.Dataset.from_dict(
            {"img": images, "fine_label": [i % 2 for i in range(count)]}, features=features
        )

    offline.DatasetDict(train=rows(6), validation=rows(4)).save_to_disk(tmp_path / "both")
    train, test = load_hub(str(tmp_path / "both"), 8)
    assert (len(train), len(test), train.classes) == (6, 4, ("red fox", "owl"))
    assert train.batch([3, 2])[:, 0, 0, 0].tolist() == [3, 2]
    assert train.labels.tolist() == [0, 1] * 3
    rows(10).save_to_disk(tmp_path / "one")
    train, test = load_hub(str(tmp_path / "one"), 8)
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([4, 4], [1, 1])
    for broken, message in [
        (rows(4).remove_columns("fine_label"), "needs an image column and one of ClassLabels, .* it has img"),
        (rows(4).map(lambda row: {"fine_label": -1}), "4 images have no label"),
        (offline.DatasetDict(extra=rows(4)), "no split 'train', only extra"),
    ]:
        broken.save_to_disk(tmp_path / message[:5])
        with pytest.raises(DataError, match=message):
            load_hub(str(tmp_path / message[:5]), 8)


def test_hub_set_copied_to_a_folder(tmp_path: Path, offline) -> None:  # type: ignore[no-untyped-def]
    folder = class_folder(tmp_path / "copy" / "train", fox=5, owl=5)
    train, test = load_hub(str(folder.parent), 8)
    assert (train.classes, len(train), len(test)) == (("fox", "owl"), 8, 2)
    assert train.fingerprint() != test.fingerprint()


def test_hub_set_that_cannot_be_had(offline) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"hub:oodream-tests/none cannot be loaded: .*\(OfflineModeIsEnabled"):
        load_hub("oodream-tests/none", 8)


def test_hub_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install '\.\[hub\]'"):
        load_hub("any/thing", 8)


@pytest.mark.parametrize("column", ["label", "species"])
def test_hub_set_with_labels_of_text(tmp_path: Path, offline, column: str) -> None:  # type: ignore[no-untyped-def]
    """The classes are in alphabetical order, and the test split has the training split's."""

    def rows(*names: str):  # type: ignore[no-untyped-def]
        images = [picture((i, 0, 99), 8, 8) for i in range(len(names))]
        features = offline.Features({"image": offline.Image(), column: offline.Value("string")})
        return offline.Dataset.from_dict({"image": images, column: list(names)}, features=features)

    owls = rows("owl", "red_fox", "owl", "red_fox")
    offline.DatasetDict(train=owls, Testing=rows("red_fox")).save_to_disk(tmp_path / "a")
    train, test = load_hub(str(tmp_path / "a"), 8)
    assert (train.classes, train.labels.tolist()) == (("owl", "red fox"), [0, 1, 0, 1])
    assert (test.classes, test.labels.tolist()) == (("owl", "red fox"), [1])
    assert load_hub(str(tmp_path / "a"), 8, names=("bird", "beast"))[0].classes == ("bird", "beast")
    for name, split, message in [
        ("b", rows("owl", "cat"), "Testing has classes that train has not: cat"),
        ("c", rows("owl", ""), "1 images have no label"),
    ]:
        offline.DatasetDict(train=owls, Testing=split).save_to_disk(tmp_path / name)
        with pytest.raises(DataError, match=message):
            load_hub(str(tmp_path / name), 8)


def test_hub_sets_are_refused_before_a_picture_is_read(  # type: ignore[no-untyped-def]
    tmp_path: Path, offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(*names: str):  # type: ignore[no-untyped-def]
        features = offline.Features(
            {"image": offline.Image(), "label": offline.ClassLabel(names=sorted({*names}))}
        )
        return offline.Dataset.from_dict(
            {"image": [picture()] * len(names), "label": list(names)}, features=features
        )

    monkeypatch.setattr(images, "read_or_measure", lambda *_: pytest.fail("read a picture"))
    for i, (names, message) in enumerate(
        [
            (("Unknown", "owl") * 2, r"a class is called 'Unknown'.*\(--classes\)"),
            (("red_fox", "red fox") * 2, "several classes called red fox"),
            (("owl", "cat", "owl"), r"fewer than 2 images: cat \(1\)"),
        ]
    ):
        rows(*names).save_to_disk(tmp_path / str(i))
        with pytest.raises(DataError, match=message):
            load_hub(str(tmp_path / str(i)), 8)
    with pytest.raises(DataError, match="has 2 classes and the list names 3"):
        load_hub(str(tmp_path / "0"), 8, names=("a", "b", "c"))
