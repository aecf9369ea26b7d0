"""Sets of pictures: by index and batch, with damaged files, of any depth, in memory or not."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.core.errors import DataError
from oodream.data import images as image_sets
from oodream.data.folders import load_folder, load_ood
from oodream.data.images import ImageSet, from_array, from_files
from oodream.data.scan import image_files
from tests.helpers.pictures import class_folder, picture, save


def test_images_by_index_batch_and_subset() -> None:
    pixels = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8)
    images = from_array("x", pixels, torch.tensor([0, 1, 0, 1, 0, 1, 0]), ("a", "b"))
    assert len(images) == 7
    assert torch.equal(images.batch([3, 1]), pixels[[3, 1]])
    assert torch.equal(torch.cat([batch for batch, _ in images.batches(3)]), pixels)
    assert [len(labels) for _, labels in images.batches(3)] == [3, 3, 1]
    part = images.subset(torch.tensor([5, 0])).subset(torch.tensor([1]))
    assert torch.equal(part.batch(torch.tensor([0])), pixels[[0]])
    assert part.files == ("x[0]",)
    odd = images.subset(images.labels == 1, "odd")
    assert (odd.name, odd.files) == ("odd", ("x[1]", "x[3]", "x[5]"))
    assert torch.equal(odd.batch([0, 1, 2]), pixels[[1, 3, 5]])
    ood = images.as_ood("far")
    assert (ood.name, ood.classes, set(ood.labels.tolist())) == ("far", (), {-1})


def test_fingerprint_is_of_content_alone(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "here", a=3, b=3)
    files, labels = image_files(folder), [0, 0, 0, 1, 1, 1]
    images = from_files("one", files, labels, ("a", "b"), 8)
    copy = from_array("two", images.batch(range(6)), torch.tensor(labels), ("a", "b"))
    assert copy.fingerprint() == images.fingerprint() == images.subset(torch.arange(6)).fingerprint()
    changed = copy.batch(range(6)).clone()
    changed[5, 2, 7, 7] += 1
    others = [
        from_array("two", changed, copy.labels, copy.classes),
        from_array("two", copy.batch(range(6)), 1 - copy.labels, copy.classes),
        from_array("two", copy.batch(range(6)), copy.labels, ("a", "c")),
        images.subset(torch.tensor([1, 0, 2, 3, 4, 5])),
        images.subset(torch.arange(5)),
        from_files("one", files, labels, ("a", "b"), 9),
    ]
    assert len({copy.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def test_a_set_too_large_for_memory_is_read_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folder(tmp_path, a=22, b=2)
    (folder / "a" / "000.png").write_bytes(b"")
    files, labels = image_files(folder), [0] * 22 + [1] * 2
    with pytest.warns(UserWarning, match=r"000\.png"):
        held = from_files("x", files, labels, ("a", "b"), 8)
    monkeypatch.setattr(image_sets, "IN_MEMORY", 24 * 3 * 64 - 1)
    with pytest.warns(UserWarning, match=r"000\.png"):
        streamed = from_files("x", files, labels, ("a", "b"), 8)
    assert streamed.fingerprint() == held.fingerprint()
    assert torch.equal(streamed.batch([22, 0]), held.batch([22, 0]))
    files[5].unlink()
    assert len(held.batch([4])) == 1
    with pytest.raises(OSError, match=r"005\.png"):
        streamed.batch([4])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_truncated_and_other_broken_files_are_named(tmp_path: Path, suffix: str) -> None:
    whole = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    good = save(tmp_path / f"good.{suffix}", whole).read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(good[: len(good) // 2])
    (tmp_path / f"empty.{suffix}").write_bytes(b"")
    (tmp_path / f"text.{suffix}").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="3 of 4 images cannot be read") as caught:
        load_ood(tmp_path, 8)
    assert all(f"{name}.{suffix}" in str(caught.value) for name in ("cut", "empty", "text"))
    assert "good" not in str(caught.value)


def test_broken_files_are_skipped_up_to_five_percent(tmp_path: Path) -> None:
    for i in range(38):
        save(tmp_path / f"{i}.png")
    for name in ("bad1.png", "bad2.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"2 of 40 images cannot be read(.|\n)*bad1\.png(.|\n)*bad2\.png"):
        images = load_ood(tmp_path, 8)
    assert {Path(file).name for file in images.files} == {f"{i}.png" for i in range(38)}
    (tmp_path / "bad3.png").write_bytes(b"")
    with pytest.raises(DataError, match="more than 5%"):
        load_ood(tmp_path, 8)


def test_a_decompression_bomb_is_a_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "small.png")
    save(tmp_path / "bomb.png", picture(width=400, height=400))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with pytest.raises(DataError, match=r"bomb\.png: It has more than the 80,000 pixels that a picture may"):
        load_ood(tmp_path, 8)


# Pickling


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_set_goes_to_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    folder = class_folder(tmp_path / "data", a=4, b=4)
    monkeypatch.setattr(image_sets, "IN_MEMORY", 2 << 30 if in_memory else 0)
    train, test = load_folder(folder, 8)
    ood = load_ood(folder, 8)
    array = from_array("x", torch.arange(192, dtype=torch.uint8).reshape(1, 3, 8, 8), torch.zeros(1), ("a",))
    for images in (train, test, ood, array, train.subset(torch.tensor([2, 0])).as_ood("far")):
        copy = pickle.loads(pickle.dumps(images))
        assert (copy.name, copy.files, copy.fingerprint()) == (
            images.name,
            images.files,
            images.fingerprint(),
        )


def test_a_spawned_worker_reads_a_set(tmp_path: Path) -> None:
    train, _ = load_folder(class_folder(tmp_path, a=3, b=3), 8)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert torch.equal(pool.submit(train.batch, [1, 0]).result(), train.batch([1, 0]))


# Deep pictures: one white for a set


def deep(folder: Path, *peaks: int) -> Path:
    """A picture for every peak: the peak and a fifth of it, side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, peak in enumerate(peaks):
        values = np.full((8, 8), peak, np.uint16)
        values[:, 4:] = peak // 5
        save(folder / f"{i}.png", Image.fromarray(values))
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_deep_pictures_have_one_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    """A dim picture stays dim, though its values alone would fit 8 bits."""
    monkeypatch.setattr(image_sets, "IN_MEMORY", 2 << 30 if in_memory else 0)
    save(deep(tmp_path, 4095, 240, 2000) / "gray.png", Image.new("L", (8, 8), 77))
    images = load_ood(tmp_path, 8)
    assert images.white == 4095
    assert images.batch(range(4))[:, 0, 0, 0].tolist() == [255, 15, 125, 77]
    assert load_ood(tmp_path, 8, white=8190).batch(range(4))[:, 0, 0, 0].tolist() == [128, 7, 62, 77]
    assert load_ood(tmp_path, 8, white=8190).identity() != images.identity()


def test_full_depth_stays_as_it_was(tmp_path: Path) -> None:
    images = load_ood(deep(tmp_path, 65535, 257 * 100), 8)
    assert (images.white, images.batch(range(2))[:, 0, 0, 0].tolist()) == (65535, [255, 100])
    assert images.subset(torch.tensor([1])).white == 65535


def test_sets_of_eight_bits_have_no_white(tmp_path: Path) -> None:
    assert load_ood(class_folder(tmp_path, a=2), 8).white == 0


def test_test_images_have_the_training_images_white(tmp_path: Path) -> None:
    for name, peak in (("a", 4000), ("b", 2000)):
        deep(tmp_path / "train" / name, peak, peak)
        deep(tmp_path / "test" / name, peak // 10)
    with pytest.warns(UserWarning, match="-test: 2 of 2 pictures are nearly black"):
        train, test = load_folder(tmp_path, 8)
    assert train.white == test.white == 4095
    assert test.batch([0, 1])[:, 0, 0, 0].tolist() == [25, 12]


def test_a_set_that_is_nearly_black_or_white_is_named(tmp_path: Path) -> None:
    hot = deep(tmp_path / "hot", 1000, 1000, 1000, 65535)
    with pytest.warns(
        UserWarning, match=r"hot: 3 of 4 pictures are nearly black.* White is 65535; the option `white`"
    ):
        load_ood(hot, 8)
    for i in range(3):
        save(tmp_path / "night" / f"{i}.png", picture((20, 31, 9)))
    with pytest.warns(UserWarning, match="night: 3 of 3 pictures are nearly black"):
        load_ood(tmp_path / "night", 8)
    with pytest.warns(UserWarning, match=r"hot: 4 of 4 pictures are nearly white\. White is 100"):
        load_ood(hot, 8, white=100)


def test_an_image_set_of_no_group_is_refused() -> None:
    images = from_array("x", torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([-1]), ())
    with pytest.raises(
        DataError, match=r"'bags' has the group 'neer'.* Did you mean 'near'.* there are near, far"
    ):
        ImageSet(name="bags", group="neer", images=images)
