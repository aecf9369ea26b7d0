"""Text from any editor, JSON of any text, names for any terminal, and permissions as the user has them."""

from __future__ import annotations

import io
import json
import os
import stat

import pytest
import torch

from oodream.core.errors import StoreError, listed, shown
from oodream.core.files import (
    atomic_file,
    atomic_folder,
    encode_json,
    read_json,
    read_json_lines,
    read_text,
    write_bytes,
    write_json,
)
from oodream.core.tensors import save_tensors

SEPARATORS = "\u2028\u2029\u0085\u001c\x0b\x0c"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    (tmp_path / "a").write_text('{"größe": "日本"}', encoding=encoding)
    assert read_text(tmp_path / "a") == '{"größe": "日本"}'
    assert read_json(tmp_path / "a") == {"größe": "日本"}
    assert read_json_lines(tmp_path / "a") == [{"größe": "日本"}]


def test_lines_of_json_end_at_newlines_alone(tmp_path):
    values = [{"name": f"a{c}b"} for c in SEPARATORS] + [3]
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    (tmp_path / "a").write_bytes(("\r\n".join(lines) + "\n\n").encode())
    assert read_json_lines(tmp_path / "a") == values
    assert read_json_lines(tmp_path / "a", parse=len) == [len(line) + 1 for line in lines[:-1]] + [1]


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\xff", b"\x80"])
def test_damaged_json_is_named(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(StoreError, match=r"a\.json is damaged .* Remove it"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"Expecting|decode|truncated"):
        read_json_lines(tmp_path / "a.json")


def test_names_that_are_no_utf8_go_through_json(tmp_path):
    name = os.fsdecode(b"gr\xfcn.png")
    write_json(tmp_path / "a.json", {"file": name, "größe": 1})
    assert read_json(tmp_path / "a.json")["file"] == name
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert encode_json([name]) == b'["gr\\udcfcn.png"]'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (os.fsdecode(b"gr\xfcn.png"), r"gr\xfcn.png"),
        ("grün 日本.png", "grün 日本.png"),
        ("a\u2028b\x1b[31m\n.png", r"a\u2028b\x1b[31m\n.png"),
    ],
)
def test_names_are_shown_on_any_terminal(name, text):
    assert shown(name) == text
    print(shown(name), file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict"))


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_what_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a", b"x")
        save_tensors(tmp_path / "t", {"x": torch.ones(2)})
        with atomic_folder(tmp_path / "f") as fresh:
            (fresh / "b").write_text("x")
    finally:
        os.umask(before)
    for name in ("a", "t"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o777 & ~umask


def test_a_file_that_is_not_finished_leaves_what_was_there(tmp_path):
    def parts():
        yield b"new"
        raise KeyboardInterrupt

    def by_a_library():
        with atomic_file(tmp_path / "a") as file:
            file.write_bytes(b"new")
            file.with_name("beside").write_bytes(b"")
            raise KeyboardInterrupt

    write_bytes(tmp_path / "a", [b"o", b"ld"])
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", parts())
    with pytest.raises(KeyboardInterrupt):
        by_a_library()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_long_lists_are_cut():
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(12)), "\n") == "\n".join([*map(str, range(10)), "… and 2 more"])
