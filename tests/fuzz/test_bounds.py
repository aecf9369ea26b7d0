"""Small inputs that would take all memory, all time or all room of a message: refused before they do."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oodream.config import Config
from oodream.core.errors import DataError, StoreError, brief, shown
from oodream.core.files import parse_json, parse_toml, read_json, read_json_lines, read_text
from oodream.core.options import ConfigError, overlay
from oodream.data.captions import captioned_folder
from oodream.data.folders import load_folder
from oodream.data.scan import is_run_folder, scan
from oodream.runtime.pictures import read_square, square, squares
from oodream.runtime.rgb import to_rgb

DEEP = "[" * 100_000
PEAK = """
import resource, sys
from io import BytesIO
from oodream.runtime.pictures import read_square
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_square(BytesIO(open(sys.argv[1], "rb").read()), 224)
except OSError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def png(width: int, height: int, rows: int) -> bytes:
    """A PNG whose header says `height` rows of black pixels, of which `rows` are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + width) * rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def tiff(width: int, height: int) -> bytes:
    """A TIFF of 7 rows whose header says `height`."""
    file = io.BytesIO()
    Image.new("RGB", (width, 7)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    at = data.index(struct.pack("<HHI", 257, 4, 1)) + 8  # behind the tag of the height
    data[at : at + 4] = struct.pack("<I", height)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(9, 16_187_399), "9 x 16,187,399 pixels, too narrow to be made 224 pixels wide"),
        (png(1, 3_000_000, 3_000_000), "1 x 3,000,000 pixels, too narrow to be made 224 pixels wide"),
        (png(100_000, 100_000, 1), "more than the 178,956,970 pixels"),
        (png(2**31 - 1, 2**31 - 1, 1), "more than the 178,956,970 pixels"),
    ],
    ids=["a narrow TIFF", "a narrow PNG", "a large PNG", "the largest PNG"],
)
def test_a_small_file_of_very_many_pixels_takes_little_memory(tmp_path, data, message):
    """The first one's rows are few bytes each, and 224 pixels each between the two steps of its resizing."""
    (tmp_path / "bomb.png").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "bomb.png")], capture_output=True, text=True, check=True
    )
    said, peak = done.stdout.splitlines()
    assert message in said
    assert int(peak) < 100, "million bytes"


def test_a_narrow_picture_that_is_given_is_refused_too():
    with pytest.raises(DataError, match="too narrow"):
        square(Image.new("L", (1, 900_000)), 224)
    assert square(Image.new("L", (1, 9_000)), 224).size == (224, 224)


def test_a_jpeg_of_very_many_scans_is_refused():
    """Each one is a pass over all pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    read_square(io.BytesIO(data), 8)
    scan_of_it = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(OSError, match=r"a JPEG of \d+ scans, and one of at most 100 is read"):
        read_square(io.BytesIO(data[:-2] + scan_of_it * 100 + data[-2:]), 8)


def test_what_other_programs_would_read_is_refused_whatever_its_name(tmp_path):
    """Pillow would begin Ghostscript for it."""
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n(%pipe%id) (r) file\n%%EOF\n"
    )
    with pytest.raises(DataError, match=r"a\.png cannot be read: EPS: convert to PNG or JPEG"):
        list(squares(tmp_path / "a.png", 8))


def test_deep_pictures_are_scaled_as_before():
    """In place, which changes no value."""
    values = np.array([[0, 1, 700], [np.nan, -5, 65535]], dtype=np.float32)
    expected = np.rint(np.where(np.isfinite(values), values, 0).clip(0, 1000).astype(float) * (255 / 1000))
    pixels = np.array(to_rgb(Image.fromarray(values), white=1000.0))
    assert (pixels == expected.astype(np.uint8)[..., None]).all()


# Text, JSON, TOML


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_json, DEEP, "nested too deeply"),
        (parse_json, '{"a":' * 100_000, "nested too deeply"),
        (parse_json, "9" * 5000, "is no JSON"),
        (parse_json, "{", "is no JSON"),
        (parse_toml, f"a = {DEEP}", "nested too deeply"),
        (parse_toml, f"a = {'9' * 5000}", "is no TOML"),
        (parse_toml, "#" * (3 << 20), "more than 2,097,152 characters"),
    ],
)  # fmt: skip
def test_texts_that_no_person_writes(parse, text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_link_to_a_device_without_an_end(tmp_path):
    (tmp_path / "a.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        read_text(tmp_path / "a.json", 1000)
    with pytest.raises(StoreError, match=r"a\.json is damaged \(it has more than 67,108,864 bytes\)"):
        read_json(tmp_path / "a.json")
    (tmp_path / "run.json").symlink_to("/dev/zero")
    assert not is_run_folder(tmp_path)
    for name in ("circle", "star"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / "data" / name / f"{i}.png")
    (tmp_path / "data" / "classes.toml").symlink_to("/dev/zero")
    train, _ = load_folder(tmp_path / "data", 4)
    assert train.classes == ("circle", "star")


def test_lines_nested_deeply_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(f"{{}}\n{DEEP}\n")
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json_lines(tmp_path / "a.jsonl")
    (tmp_path / "run.json").write_text(DEEP)
    assert not is_run_folder(tmp_path)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan")], ids=brief)
def test_numbers_beyond_all_range_in_options(value):
    with pytest.raises(ConfigError, match=r"lr (must be|is a number beyond all range)"):
        overlay(Config(), {"train": {"optimisation": {"lr": value}}})
    with pytest.raises(ConfigError, match=r"seeds (must be|cannot be)"):
        overlay(Config(), {"seeds": value})


def test_messages_are_short():
    """Whatever is wrong with a value of a million characters."""
    with pytest.raises(ConfigError) as refused:
        overlay(Config(), {"data": ["x" * 1_000_000]})
    assert len(str(refused.value)) < 300
    assert brief([1, 2]) == "[1, 2]"
    assert brief("x" * 1000).endswith("… (1,002 characters)")
    assert brief(int("f" * 9000, 16)) == "a int that cannot be printed"


def test_half_characters_are_shown():
    """As JSON may hold them; those of file names stand for bytes."""
    assert shown("a\ud800b") == "a\\ud800b"
    assert shown(os.fsdecode(b"a\xff")) == "a\\xff"


# Folders


def test_links_in_circles_and_folders_in_each_other(tmp_path):
    """A hundred links to the folder above, and folders three hundred deep."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for i in range(100):
        (tmp_path / f"up{i}").symlink_to(tmp_path)
    (tmp_path / ".loop").symlink_to(tmp_path / ".loop")
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    Image.new("RGB", (4, 4)).save(deep / "b.png")
    began = time.process_time()
    found = scan(tmp_path)
    assert [file.name for file in found.files] == ["a.png", "b.png"]
    assert time.process_time() - began < 5
    (deep / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "b"}')
    with pytest.warns(UserWarning, match="a.png"):
        assert captioned_folder(tmp_path, 4)[1] == ["b"]


@pytest.mark.parametrize(
    ("name", "index", "message"),
    [
        ("metadata.jsonl", json.dumps({"file_name": "a\0b.png", "text": "x"}), "line 1: .*null"),
        ("metadata.jsonl", json.dumps({"file_name": "\ud800.png", "text": "x"}), "line 1: .*Unicode"),
        ("metadata.jsonl", json.dumps({"file_name": ".loop/a.png", "text": "x"}), "cannot be read|line 1"),
        ("metadata.jsonl", json.dumps({"file_name": "../a.png", "text": "x"}), "lies outside"),
        ("metadata.jsonl", json.dumps({"file_name": "/etc/passwd", "text": "x"}), "lies outside"),
        ("metadata.jsonl", json.dumps({"file_name": "a" * 5000, "text": "x"}), "cannot be read|line 1"),
        ("metadata.jsonl", f'{{"file_name": "a.png", "text": "x", "weight": 1{"0" * 400}}}', "line 1"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x", "weight": 1e300}', "line 1: .*weight 1e"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x", "weight": 0}', "every weight is 0"),
        ("metadata.jsonl", DEEP, "line 1: .*nested too deeply"),
        ("metadata.csv", f"file_name,text\na.png,{'x' * 200_000}\n", "line 2, is no line of CSV"),
    ],
)
def test_an_index_of_captions_that_lies(tmp_path: Path, name, index, message):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / ".loop").symlink_to(tmp_path / ".loop")
    (tmp_path / name).write_text(index)
    with pytest.raises(DataError, match=message):
        captioned_folder(tmp_path, 4)
