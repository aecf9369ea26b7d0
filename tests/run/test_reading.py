"""Records that are read line by line."""

from __future__ import annotations

import pytest

from oodream.core.errors import StoreError
from oodream.core.files import encode_json
from oodream.run.reading import Lines

VALUES = [{"row": m, "word": word} for m, word in enumerate(("größe", "a\u2028b", ""))]


def test_lines_are_read_when_they_are_asked_for(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n\n".join(map(encode_json, VALUES)))
    lines = Lines(file, "images/imagined")
    assert len(lines) == 3
    assert [lines[m] for m in (2, 0, -1, 1)] == [VALUES[m] for m in (2, 0, -1, 1)]
    assert list(lines) == list(lines) == VALUES


def test_lines_are_indexed_as_a_list_is(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(map(encode_json, VALUES)))
    lines = Lines(file, "images/imagined")
    assert (lines[:2], lines[::-2], lines[5:]) == (VALUES[:2], VALUES[::-2], [])
    for row in (3, -4):
        with pytest.raises(IndexError, match="out of range"):
            lines[row]
    with pytest.raises(TypeError, match="must be integers or slices, not str"):
        lines["word"]


@pytest.mark.parametrize("data", [b"", b"\n", b'{"row": 0}\n{"row"', b"\xff\n"])
def test_what_is_damaged_says_what_to_make_again(tmp_path, data):
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(StoreError, match=r"a\.jsonl is damaged .* --redo images/imagined"):
        Lines(tmp_path / "a.jsonl", "images/imagined")
    with pytest.raises(StoreError, match=r"b\.jsonl is missing\. .* --redo images/imagined"):
        Lines(tmp_path / "b.jsonl", "images/imagined")


def test_a_line_that_was_changed_later_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"[1]\n[2]\n")
    lines = Lines(file, "images/imagined")
    file.write_bytes(b"[1]\n[2\n")
    with pytest.raises(StoreError, match="is damaged"):
        lines[1]
    with pytest.raises(StoreError, match="is damaged"):
        list(lines)
