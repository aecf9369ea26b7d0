"""The embedded sample, the full Fashion-MNIST from IDX files or the hub, and the built-in OOD sets."""

from __future__ import annotations

import gzip
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from oodream.core.errors import DataError
from oodream.core.seeding import derive
from oodream.data import builtin
from oodream.data.builtin import DEBIAN, FAR_SETS, FASHION, FASHION_ID, FASHION_NEAR, fashion


def test_sample_sizes_and_labels() -> None:
    train, test, bags = (
        fashion("train", FASHION_ID),
        fashion("test", FASHION_ID),
        fashion("test", FASHION_NEAR),
    )
    assert train.labels.bincount().tolist() == [1500] * 8
    assert test.labels.bincount().tolist() == [250] * 8
    assert bags.labels.bincount().tolist() == [250] * 2
    assert train.batch([0]).shape == (1, 3, 32, 32)
    assert train.batch([0]).dtype == torch.uint8
    assert sum(file.stat().st_size for file in (builtin.ASSETS / "fashion").iterdir()) <= 8_000_000
    assert "Zalando" in (builtin.ASSETS / "fashion" / "LICENSE").read_text(encoding="utf-8")


def test_sample_labels_follow_the_asked_order_and_show_what_they_say() -> None:
    two = fashion("test", ("dress", "trouser"), size=28)
    back = fashion("test", ("trouser", "dress"), size=28)
    assert torch.equal(two.labels, 1 - back.labels)
    assert torch.equal(two.batch(range(500)), back.batch(range(500)))
    shoes = fashion("test", ("sneaker", "pullover"), size=28)
    top_row_ink = shoes.batch(range(500))[:, 0, :8].float().mean((1, 2))
    assert top_row_ink[shoes.labels == 0].mean() < 10 < top_row_ink[shoes.labels == 1].mean()


def test_no_training_image_of_a_near_class_is_embedded() -> None:
    with pytest.raises(DataError, match="no images of bag, boot here"):
        fashion("train", FASHION)
    with Image.open(builtin.ASSETS / "fashion" / "train.png") as sheet:
        assert sheet.size == (8 * 28, 1500 * 28)


def test_training_and_test_images_are_disjoint() -> None:
    seen = {row.tobytes() for row in fashion("train", FASHION_ID, size=28).batch(range(12000)).numpy()}
    test = fashion("test", FASHION, size=28).batch(range(2500)).numpy()
    assert not any(row.tobytes() in seen for row in test)


@pytest.mark.parametrize(("split", "classes"), [("val", FASHION_ID), ("test", ("tshirt", "hat"))])
def test_unknown_split_or_class(split: str, classes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="splits train and test and the classes tshirt"):
        fashion(split, classes)


# The full set


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_full(folder: Path, zipped: bool, prefix: str = "t10k") -> None:
    folder.mkdir(parents=True)
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    for kind, array in (
        ("images-idx3-ubyte", images),
        ("labels-idx1-ubyte", np.arange(20, dtype=np.uint8) % 10),
    ):
        (folder / f"{prefix}-{kind}{'.gz' * zipped}").write_bytes(
            gzip.compress(idx(array)) if zipped else idx(array)
        )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw", "raw"])
def test_full_set_from_a_path(tmp_path: Path, zipped: bool, below: str) -> None:
    write_full(tmp_path / "data" / below, zipped)
    images = fashion("test", ("boot", "tshirt"), root=tmp_path / "data", size=28)
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert images.batch(range(4))[:, 0, 0, 0].tolist() == [0, 9, 10, 19]
    with pytest.raises(DataError, match="has no train-images-idx3-ubyte"):
        fashion("train", FASHION_ID, root=tmp_path / "data")


def test_damaged_idx_files(tmp_path: Path) -> None:
    write_full(tmp_path / "zipped", True)
    write_full(tmp_path / "plain", False)
    for folder, suffix in (("zipped", ".gz"), ("plain", "")):
        images, labels = (
            tmp_path / folder / f"t10k-{kind}{suffix}" for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        whole = images.read_bytes()
        for damaged in (b"", whole[:3], whole[: len(whole) // 2], b"\x00\x00\x0d" + whole[3:], b"x" * 200):
            images.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{images.name} is damaged .* Fetch it again"):
                fashion("test", FASHION, root=tmp_path / folder)
        images.write_bytes(whole)
        shorter = idx(np.zeros(19, np.uint8))
        labels.write_bytes(gzip.compress(shorter) if suffix else shorter)
        with pytest.raises(DataError, match=r"20 images, .* 19 labels"):
            fashion("test", FASHION, root=tmp_path / folder)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_sample_is_part_of_the_full_set() -> None:
    full = fashion("test", FASHION, size=28, full=True)
    assert full.labels.bincount().tolist() == [1000] * 10
    known = {
        (label, row.tobytes())
        for label, row in zip(full.labels.tolist(), full.batch(range(10000)).numpy(), strict=True)
    }
    sample = fashion("test", FASHION, size=28)
    assert all(
        (label, row.tobytes()) in known
        for label, row in zip(sample.labels.tolist(), sample.batch(range(2500)).numpy(), strict=True)
    )
    assert len(fashion("test", FASHION_NEAR, size=8, full=True)) == 2000


def test_full_set_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "DEBIAN", tmp_path)
    asked = []

    def load_dataset(name: str, split: str) -> dict[str, list]:
        asked.append((name, split))
        return {"image": [Image.new("L", (28, 28), 10 * i) for i in range(10)], "label": list(range(10))}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    images = fashion("train", ("bag", "coat"), full=True)
    assert asked == [("zalando-datasets/fashion_mnist", "train")]
    assert (images.labels.tolist(), images.batch([0, 1])[:, 0, 9, 9].tolist()) == ([1, 0], [40, 80])


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(load_dataset=lambda *_, **__: 1 / 0)])
def test_full_set_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setattr(builtin, "DEBIAN", tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", module)
    with pytest.raises(DataError, match=r"Three ways.*dataset-fashion-mnist.*IDX.*'\.\[hub\]'"):
        fashion("train", FASHION_ID, full=True)


# OOD sets


@pytest.mark.parametrize("name", FAR_SETS)
def test_ood_sets_are_ood_and_belong_to_their_seed(name: str) -> None:
    make, about = FAR_SETS[name]
    assert about
    images = make(32, 40, 0)
    pixels = images.batch(range(40))
    assert (images.name, images.classes, images.labels.tolist()) == (name, (), [-1] * 40)
    assert (pixels.shape, pixels.dtype) == ((40, 3, 32, 32), torch.uint8)
    assert len({row.numpy().tobytes() for row in pixels}) == 40
    assert make(32, 40, 0).fingerprint() == images.fingerprint()
    assert make(32, 40, 1).fingerprint() != images.fingerprint()
    assert torch.equal(make(32, 12, 0).batch(range(12)), pixels[:12])
    assert make(48, 3, 0).batch([0]).shape == (1, 3, 48, 48)
    assert make(32, 3000, 0).batch(range(2)).shape[0] == 2


def test_finite_sets_give_all_they_have() -> None:
    assert len(FAR_SETS["digits"][0](8, 9999, 0)) == 1797
    assert len(fashion("test", FASHION_NEAR, size=8)) == 500


def test_letters_are_light_on_black_and_whole() -> None:
    pixels = FAR_SETS["letters"][0](32, 300, 0).batch(range(300))[:, 0]
    assert (pixels.flatten(1).float().median(1).values == 0).all()
    assert (pixels.flatten(1).max(1).values > 90).all()


def test_photos_and_textures_are_in_colour() -> None:
    for name in ("photos", "textures", "noise"):
        pixels = FAR_SETS[name][0](32, 100, 0).batch(range(100)).float()
        assert (pixels.amax(1) - pixels.amin(1)).mean() > 15


def test_letters_are_those_of_their_typefaces() -> None:
    """Drawn again with the fonts that the sheet was made from, every letter is nearly the same."""
    matplotlib = pytest.importorskip("matplotlib")
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
        "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
        "cmr10", "cmb10", "cmss10", "cmtt10",
    )  # fmt: skip
    drawn = []
    for i in range(100):
        random = np.random.default_rng(derive(0, "letters", i))
        font = ImageFont.truetype(str(fonts / f"{random.choice(names)}.ttf"), random.uniform(0.5, 0.9) * 128)
        letter, gray = builtin.LETTERS[random.integers(52)], int(random.integers(150, 256))
        left, top, right, bottom = font.getbbox(letter)
        x, y = (128 - right + left, 128 - bottom + top) * random.uniform(0.25, 0.75, 2)
        image = Image.new("L", (128, 128))
        ImageDraw.Draw(image).text((x - left, y - top), letter, fill=gray, font=font)
        drawn.append(np.asarray(image.rotate(random.uniform(-15, 15), resample=Image.Resampling.BICUBIC)))
    old = builtin.resize_all(drawn, 32).flatten(1).double()
    new = builtin.letters(32, 100).batch(range(100)).flatten(1).double()
    alike = torch.nn.functional.cosine_similarity(old, new)
    assert alike.min() > 0.95
    assert alike.mean() > 0.985
    assert torch.nn.functional.cosine_similarity(old, new.roll(1, 0)).mean() < 0.7, "of other letters"


def test_every_typeface_and_letter_has_its_cell() -> None:
    sheet, em, (width, height), boxes = builtin.glyphs()
    assert sheet.size == (width * 52, height * 14)
    assert (len(boxes), {len(row) for row in boxes}) == (14, {52})
    assert all(0.1 * em < h <= height and 0.1 * em < w <= width for row in boxes for w, h in row)
    assert "SIL OPEN FONT LICENSE" in (builtin.ASSETS / "letters" / "LICENSE").read_text(encoding="utf-8")
