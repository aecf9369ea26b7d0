"""One picture becomes the square a person would expect, or a clear error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, TiffImagePlugin

from oodream.core.errors import DataError
from oodream.data.preprocess import read_image, read_pictures, resize_all
from oodream.data.scan import image_files
from oodream.runtime import rgb
from oodream.runtime.pictures import is_single, square
from oodream.runtime.rgb import Depth, to_rgb, white_of
from tests.helpers.pictures import RED, WHITE, picture, save


def centre(path: Path) -> list[int]:
    return read_image(path, 32)[:, 16, 16].tolist()


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "gif", "JPG"])
def test_every_common_format_shows_the_same_colour(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}")
    assert centre(path) == pytest.approx(RED, abs=4)
    assert image_files(tmp_path) == [path]


def test_modes(tmp_path: Path) -> None:
    for name, image in [
        ("cmyk.tif", picture().convert("CMYK")),
        ("cmyk.jpg", picture().convert("CMYK")),
        ("palette.png", picture().quantize(4)),
    ]:
        assert centre(save(tmp_path / name, image)) == pytest.approx(RED, abs=4), name
    assert centre(save(tmp_path / "grey.png", Image.new("L", (9, 9), 77))) == [77] * 3
    assert centre(save(tmp_path / "bit.png", Image.new("1", (9, 9), 1))) == [255] * 3
    for mode in ("HSV", "YCbCr"):  # Pillow before 13 writes YCbCr into TIFF files that it cannot read
        assert to_rgb(picture().convert(mode)).getpixel((0, 0)) == pytest.approx(RED, abs=3), mode


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
        (np.full((9, 9), 4095, np.uint16), 255),  # 12 bits in 16
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


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGBA", "LA", "P"])
def test_a_large_picture_is_as_its_bands(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows at a time, as all at once; and as numpy scales them, or lays them over white."""
    g = np.random.default_rng(0)
    if mode in ("RGBA", "LA", "P"):
        image = Image.fromarray(g.integers(0, 256, (23, 7, 4), dtype=np.uint8)).convert("RGBA")
        image = image.quantize(16) if mode == "P" else image.convert(mode)
        pixels = np.array(image.convert("RGBA")).astype(float)
        expected = pixels[..., :3] * pixels[..., 3:] / 255 + 255 - pixels[..., 3:]
    else:
        values = g.integers(0, 3000, (23, 7))
        image = Image.fromarray(values.astype({"I;16": "<u2", "I": np.int32, "F": np.float32}[mode]))
        white = 65535 if mode == "F" else 4095
        expected = np.repeat(values[..., None] * 255 / white, 3, 2)
    whole = np.array(to_rgb(image))
    monkeypatch.setattr(rgb, "BAND", 15)
    np.testing.assert_array_equal(np.array(to_rgb(image)), whole)
    np.testing.assert_allclose(whole, expected, atol=1.01)


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


# Orientation and damaged EXIF


def exif(*entries: bytes) -> bytes:
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory


def jpeg(data: bytes) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(32 * 16, dtype=np.uint8).reshape(16, 32)).save(buffer, "JPEG", exif=data)
    return buffer


def orientation(value: int) -> bytes:
    return struct.pack("<HHIHH", 0x0112, 3, 1, value, 0)


@pytest.mark.parametrize("value", range(10))
def test_every_orientation_is_pillows(value: int) -> None:
    image = Image.open(jpeg(exif(orientation(value))))
    assert np.array_equal(to_rgb(image), ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        pytest.param(b"Exif\0\0garbage, and no EXIF", False, id="garbage"),
        pytest.param(exif(struct.pack("<HHI4s", 0x0112, 2, 2, b"6")), False, id="orientation of text"),
        pytest.param(
            exif(orientation(6), struct.pack("<HHI4s", 0x0100, 2, 4, b"abc")), True, id="a width of text"
        ),
        pytest.param(
            exif(orientation(6), struct.pack("<HHIi", 0x0100, 9, 1, -5)), True, id="a negative width"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")
def test_a_good_picture_with_damaged_exif_is_read(data: bytes, turned: bool) -> None:
    """The last two have a known orientation, and Pillow fails at writing them again."""
    assert to_rgb(Image.open(jpeg(data))).size == ((16, 32) if turned else (32, 16))


def test_exif_that_pillow_cannot_read_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Image.Image) -> None:
        raise SyntaxError("not a TIFF file")

    image = Image.open(jpeg(b""))
    monkeypatch.setattr(type(image), "getexif", fails)
    assert to_rgb(image).size == (32, 16)


# Deep pictures


@pytest.mark.parametrize(
    ("peak", "white"),
    [(200, 255), (256, 1023), (4095, 4095), (5000, 16383), (16384, 65535), (70_000, 70_000)],
)
def test_the_smallest_full_scale_is_white(peak: int, white: float) -> None:
    assert white_of([Depth(peak=peak), Depth(peak=3)]) == white


def test_white_of_floats_and_of_stated_values() -> None:
    assert [white_of([Depth(peak=p, floats=True)]) for p in (0.5, 1.5, 300.0, 1e6)] == [1, 255, 65535, 1e6]
    stated = [Depth(peak=100, stated=4095), Depth(peak=900, stated=4095)]
    assert white_of(stated) == 4095
    assert white_of([*stated, Depth(peak=5)]) == 1023, "one file states nothing"
    assert white_of([*stated, Depth(peak=5000, stated=4095)]) == 16383, "one file exceeds what it states"


def png_with_bits(bits: int, value: int) -> bytes:
    """A 16-bit PNG of one value that says how many of its bits are significant."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((9, 9), value, np.uint16)).save(buffer, "PNG")
    chunk = b"sBIT" + bytes([bits])
    return b"".join(
        [
            buffer.getvalue()[:33],
            struct.pack(">I", 1),
            chunk,
            struct.pack(">I", zlib.crc32(chunk)),
            buffer.getvalue()[33:],
        ]
    )


def test_a_files_own_word_on_its_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with_bits(12, 819))
    assert centre(tmp_path / "a.png") == [51] * 3
    assert next(read_pictures(png_with_bits(12, 819), 8))[0, 0, 0] == 51
    (tmp_path / "scaled.png").write_bytes(png_with_bits(12, 65535 // 5))
    assert centre(tmp_path / "scaled.png") == [51] * 3, "scaled to 16 bits, as the format says"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    save(tmp_path / "a.tif", Image.fromarray(np.full((9, 9), 819, np.uint16)), tiffinfo=tags)
    assert centre(tmp_path / "a.tif") == [51] * 3


def test_a_given_white_counts_for_deep_pictures_alone(tmp_path: Path) -> None:
    deep = save(tmp_path / "a.png", Image.fromarray(np.full((9, 9), 819, np.uint16)))
    assert read_image(deep, 8, white=4095).unique().tolist() == [51]
    assert read_image(deep, 8, white=500).unique().tolist() == [255]
    assert read_image(
        save(tmp_path / "b.png", Image.new("L", (9, 9), 77)), 8, white=4095
    ).unique().tolist() == [77]


# Pictures in memory


def test_bytes_and_dictionaries_are_pictures(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    data = file.read_bytes()
    expected = read_image(file, 8)
    for given in (
        data, bytearray(data), memoryview(data), {"bytes": data, "path": None},
        {"bytes": None, "path": str(file)}, {"path": file},
    ):  # fmt: skip
        assert is_single(given)
        assert torch.equal(next(read_pictures(given, 8)), expected)
    assert len(list(read_pictures([data, {"bytes": data}, str(file)], 8))) == 3
    column = np.array([str(file), str(file)])
    assert not is_single(column)
    assert torch.equal(torch.stack(list(read_pictures(column, 8))), torch.stack([expected, expected]))


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (b"no picture", "A picture of bytes cannot be read: cannot identify"),
        ({"image": 3}, r'where it has "bytes" or a "path"; this one has \'image\'\.'),
        ({}, "this one has nothing"),
        ([3], "Item 0 is a int, and no picture: a path, the bytes"),
        (3, "A int is no picture: give a path"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC: convert"),
        (Image.new("RGB", (0, 5)), "A picture of 0 x 5 has no pixels"),
    ],
)
def test_what_is_no_picture_says_so(pictures: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_pictures(pictures, 8))  # type: ignore[arg-type]


def test_the_way_to_a_folders_files_is_the_one_that_the_message_names(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"is a folder.*from oodream\.data\.scan import image_files; image_files"
    ):
        list(read_pictures(tmp_path, 8))
    assert len(list(read_pictures(image_files(tmp_path), 8))) == 1


def test_a_file_whose_name_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"gr\xfcn.png"))
    os.rename(save(tmp_path / "a.png"), name)
    assert len(list(read_pictures(name, 8))) == 1
    Path(name).write_bytes(b"")
    with pytest.raises(DataError, match=r"gr\\xfcn\.png cannot be read") as caught:
        list(read_pictures(name, 8))
    assert str(caught.value).isascii()


@pytest.mark.parametrize("size", [16, 32, 50])
def test_pictures_that_are_resized_together_are_as_each_alone(size: int) -> None:
    g = np.random.default_rng(0)
    shapes = [*[(28, 28)] * 700, (28, 28, 3), *[(40, 31, 3)] * 3, (31, 40), (size, size, 3), (1, 7), (28, 28)]
    pixels = [g.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    alone = [np.asarray(square(to_rgb(Image.fromarray(picture)), size)) for picture in pixels]
    together = resize_all(pixels, size)
    assert together.is_contiguous()
    assert torch.equal(together, torch.from_numpy(np.stack(alone)).permute(0, 3, 1, 2))


def test_a_picture_too_narrow_to_be_resized_is_refused_among_others() -> None:
    narrow = np.zeros((200_000, 1), dtype=np.uint8)
    with pytest.raises(DataError, match="too narrow to be made 1000 pixels wide"):
        resize_all([narrow], 1000)
