from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from oodream.benchmark.protocol import load_protocol
from oodream.benchmark.read import load_sets
from oodream.core.errors import DataError
from oodream.data.preprocess import read_image
from tests.helpers.protocols import CLASSES, FOLDERS, PLACES, SIZE, images_of, picture


def test_sets_are_read_in_the_lists_order(root: Path) -> None:
    sets = load_sets(load_protocol(str(root / "colours.toml")), [root])
    assert [(s.name, s.group) for s in sets] == [(f"{group}-set", group) for group in PLACES]
    images = images_of(sets)["test-set"]
    assert (images.size, images.classes, len(images)) == (SIZE, CLASSES, PLACES["test"])
    assert images.labels.tolist() == [i % 3 for i in reversed(range(PLACES["test"]))]
    expected = read_image(root / "images_classic" / "colours" / "test" / "17 of 18.png", SIZE)
    assert torch.equal(images.batch([0])[0], expected)
    assert set(images_of(sets)["near-set"].labels.tolist()) == {-1}
    assert images_of(sets)["far-set"].classes == ()


def test_own_folders_are_a_protocol(folders: Path) -> None:
    sets = images_of(load_sets(load_protocol(str(folders / "mine.toml")), [folders]))
    train, test, street = (sets[name] for name in ("train", "test", "street"))
    assert train.classes == test.classes == ("ant", "zebra")
    assert train.labels.bincount().tolist() == [4, 4]
    assert test.labels.tolist() == [0] * 3 + [1] * 3
    assert street.labels.tolist() == [-1]
    assert test.batch([0])[0, 1].float().mean() > 150  # ants are green


def test_the_middle_is_what_a_crop_keeps(root: Path) -> None:
    protocol = load_protocol(str(root / "colours.toml"))
    (whole,) = (s.images for s in load_sets(protocol, [root], 8, ("test",)))
    (part,) = (s.images for s in load_sets(protocol, [root], 6, ("test",), crop=0.75))
    assert torch.equal(part.batch([3, 1]), whole.batch([3, 1])[..., 1:7, 1:7])
    assert part.size == 6
    assert torch.equal(pickle.loads(pickle.dumps(part)).batch([0]), part.batch([0]))  # for spawned workers
    for size, crop in ((6, 1.5), (-6, 1.0), (6, -0.5)):
        with pytest.raises(DataError, match="crop a share"):
            load_sets(protocol, [root], size, ("test",), crop=crop)


def test_a_part_of_every_set_is_the_same_for_the_same_seed(root: Path) -> None:
    protocol = load_protocol(str(root / "colours.toml"))
    parts = [
        images_of(load_sets(protocol, [root], max_images={"far": 5}, seed=seed))["far-set"].files
        for seed in (0, 0, 1)
    ]
    assert parts[0] == parts[1] != parts[2]
    assert len({*parts[0]}) == 5


def test_sets_of_the_hub_are_read_only_when_asked_for(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "zebra"])}
    )
    rows = {"img": [picture(3, i) for i in range(5)], "label": [0, 1, 0, 1, 0]}
    parts = {part: datasets.Dataset.from_dict(rows, features=features) for part in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(folders / "saved")
    (folders / "mine.toml").write_text(
        FOLDERS + f'[[sets]]\nname = "hubbed"\ngroup = "near"\nhub = "{folders / "saved"}"\n'
    )
    protocol = load_protocol(str(folders / "mine.toml"))
    with pytest.raises(DataError, match=r"hubbed .near.\n.*--hub would read"):
        load_sets(protocol, [folders])
    assert images_of(load_sets(protocol, [folders], hub=True))["hubbed"].labels.tolist() == [-1] * 5
