"""Folders, files, hub sets and captions become the pixels, labels and names a person would expect, or a clear error."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.core.errors import DataError
from oodream.data import images as image_sets
from oodream.data.captions import captioned_folder
from oodream.data.folders import load_folder, load_ood
from oodream.data.hub import load_hub
from oodream.data.images import from_array, from_files
from oodream.data.preprocess import image_files, read_image, square, to_rgb

RED, WHITE = (200, 30, 30), (255, 255, 255)


def picture(colour: tuple[int, int, int] = RED, width: int = 40, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def class_folder(root: Path, **counts: int) -> Path:
    """Class folders of pictures that are all different: the class is in the red channel, the number in the green one."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            save(root / name / f"{i:03}.png", picture((40 * label, i, 0), 8, 8))
    return root


def centre(path: Path) -> list[int]:
    return read_image(path, 32)[:, 16, 16].tolist()


# One picture -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif", "JPG"])
def test_every_common_format_shows_the_same_colour(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}")
    assert centre(path) == pytest.approx(RED, abs=4)
    assert image_files(tmp_path) == [path]


def test_modes(tmp_path: Path) -> None:
    for name, image in [
        ("cmyk.tif", picture().convert("CMYK")),
        ("cmyk.jpg", picture().convert("CMYK")),
        ("ycbcr.tif", picture().convert("YCbCr")),
        ("palette.png", picture().quantize(4)),
    ]:
        assert centre(save(tmp_path / name, image)) == pytest.approx(RED, abs=4), name
    assert centre(save(tmp_path / "grey.png", Image.new("L", (9, 9), 77))) == [77] * 3
    assert centre(save(tmp_path / "bit.png", Image.new("1", (9, 9), 1))) == [255] * 3
    assert to_rgb(picture().convert("HSV")).getpixel((0, 0)) == pytest.approx(RED, abs=3)


def test_transparency_shows_a_white_ground(tmp_path: Path) -> None:
    assert centre(save(tmp_path / "rgba.png", Image.new("RGBA", (9, 9), (*RED, 0)))) == list(WHITE)
    assert centre(save(tmp_path / "half.png", Image.new("RGBA", (9, 9), (0, 0, 0, 128)))) == pytest.approx(
        [127] * 3, abs=1
    )
    assert centre(save(tmp_path / "la.png", Image.new("LA", (9, 9), (10, 0)))) == list(WHITE)
    assert centre(save(tmp_path / "rgba.webp", Image.new("RGBA", (9, 9), (*RED, 0)), lossless=True)) == list(
        WHITE
    )
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert centre(save(tmp_path / "seen.png", palette, transparency=0)) == list(RED)
    assert centre(save(tmp_path / "hidden.png", palette, transparency=1)) == list(WHITE)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((9, 9), 65535, np.uint16), 255),
        (np.full((9, 9), 257 * 100, np.uint16), 100),
        (np.full((9, 9), 4095, np.uint16), 16),  # 12 bits in 16: dark, as documented
        (np.full((9, 9), 200, np.uint16), 200),  # 8 bits in 16
        (np.full((9, 9), 200, np.int32), 200),
        (np.full((9, 9), 1_000_000, np.int32), 255),
        (np.full((9, 9), 0.5, np.float32), 128),
        (np.full((9, 9), 100.0, np.float32), 100),
        (np.full((9, 9), 65535 / 5, np.float32), 51),
        (np.full((9, 9), -3.0, np.float32), 0),
        (np.full((9, 9), np.nan, np.float32), 0),
        (np.zeros((9, 9), np.uint16), 0),
    ],
)
def test_deep_greyscale_keeps_its_brightness(tmp_path: Path, array: np.ndarray, expected: int) -> None:
    assert centre(save(tmp_path / "a.tif", Image.fromarray(array))) == [expected] * 3


def test_16_bit_png_is_divided_by_257(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    assert (
        read_image(save(tmp_path / "a.png", Image.fromarray(ramp)), 16)[0].flatten() == torch.arange(256)
    ).all()


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    left_red = Image.new("RGB", (32, 32))
    left_red.paste(RED, (0, 0, 16, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to probe: the left becomes the top
    image = read_image(save(tmp_path / "a.jpg", left_red, exif=exif, quality=95), 32)
    assert image[0, 4].min() > 150
    assert image[0, 28].max() < 60


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gif", picture(), save_all=True, append_images=[picture((0, 0, 255))])
    assert centre(path) == pytest.approx(RED, abs=3)


def test_square_cuts_the_centre_and_antialiases() -> None:
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    assert np.asarray(square(wide, 32))[:, 1:-1].min() == 255
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (320, 160)))
    assert (
        np.asarray(square(stripes, 32))[:, 2:-2].astype(int).max() < 140
    )  # a fine grid becomes grey, not moiré
    assert square(Image.new("RGB", (1, 5000)), 32).size == (32, 32)


# A set of pictures -----------------------------------------------------------------------------------------------------------


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
    with pytest.raises(DataError, match=r"bomb\.png: .*decompression bomb"):
        load_ood(tmp_path, 8)


# Folders ---------------------------------------------------------------------------------------------------------------------


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
    assert load_folder(class_folder(tmp_path, train=2, test=2, bus=2), 8)[0].classes == (
        "bus",
        "test",
        "train",
    )


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
    monkeypatch.setattr(image_sets, "read_image", lambda *_: pytest.fail("read an image"))
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


# Hub data sets ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()
    return datasets


def test_hub_set_saved_to_disk(tmp_path: Path, offline) -> None:  # type: ignore[no-untyped-def]
    def rows(count: int):  # type: ignore[no-untyped-def]
        features = offline.Features(
            {"img": offline.Image(), "fine_label": offline.ClassLabel(names=["red_fox", "owl"])}
        )
        images = [picture((i, 0, 0), 8, 8) for i in range(count)]
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
        (rows(4).remove_columns("fine_label"), "needs an image and a ClassLabel column; it has img"),
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
    with pytest.raises(DataError, match="hub:oodream-tests/none cannot be loaded"):
        load_hub("oodream-tests/none", 8)


def test_hub_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'oodream\[hub\]'"):
        load_hub("any/thing", 8)


# Captions --------------------------------------------------------------------------------------------------------------------


def captions(folder: Path, *lines: object) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def test_captions_from_metadata_and_from_folders(tmp_path: Path) -> None:
    class_folder(tmp_path, red_fox=2, owl=1)
    images, texts, weights = captioned_folder(tmp_path, 8)
    assert (texts, images.classes) == (["owl", "red fox", "red fox"], ("owl", "red fox"))
    assert (images.labels.tolist(), weights.tolist()) == ([0, 1, 1], [1, 1, 1])
    same = {"file_name": "owl/000.png", "text": "a bird"}
    captions(
        tmp_path,
        same,
        {"file_name": "red_fox/001.png", "text": "a föx", "weight": 0.5},
        {**same, "text": "an owl"},
    )
    images, texts, weights = captioned_folder(tmp_path, 8)
    assert texts == ["a bird", "a föx", "an owl"]
    assert [images.classes[i] for i in images.labels] == texts
    assert weights.tolist() == [1, 0.5, 1]


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hosts", "in/../../outside.png", "link.png"])
def test_metadata_may_not_leave_its_folder(tmp_path: Path, path: str) -> None:
    save(tmp_path / "outside.png")
    folder = tmp_path / "data"
    (folder / "in").mkdir(parents=True)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    captions(folder, {"file_name": path, "text": "x"})
    with pytest.raises(DataError, match=r"line 1: .* lies outside"):
        captioned_folder(folder, 8)


@pytest.mark.parametrize(
    "line",
    [{"file_name": "a.png"}, {"text": "x"}, {"file_name": "a.png", "text": "x", "weight": "much"}, 3, []],
)
def test_metadata_lines_are_checked(tmp_path: Path, line: object) -> None:
    save(tmp_path / "a.png")
    captions(tmp_path, {"file_name": "a.png", "text": "x"}, line)
    with pytest.raises(DataError, match=r"line 2: .*file_name, text"):
        captioned_folder(tmp_path, 8)


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
