"""Tables of answers: the same rows in either format, whole or absent."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oodream.core.errors import StoreError
from oodream.core.files import read_framed, write_framed
from oodream.core.options import ConfigError
from oodream.core.sealed import framed
from oodream.deploy import tables
from oodream.deploy.tables import COLUMNS, row_of, table_for
from oodream.runtime.answers import Prediction

FLAGGED = Prediction(
    answer="unknown", flagged=True, score=2.5, threshold=1.0, likeliest="boot", p_value=0.01,
    top=(("boot", 0.75), ("bag", 0.25)),
)  # fmt: skip
ROWS = [row_of("a.png", FLAGGED), row_of("ü\u2028.png", "it is damaged"), row_of("c.png", FLAGGED)]


def test_a_row_has_every_column():
    assert [list(row) for row in ROWS] == [list(COLUMNS)] * 3
    assert ROWS[0] == {
        "file": "a.png", "answer": "unknown", "flagged": True, "score": 2.5, "threshold": 1.0,
        "likeliest": "boot", "probability": 0.75, "known": None, "p_value": 0.01, "error": None,
    }  # fmt: skip
    assert {key for key, value in ROWS[1].items() if value is not None} == {"file", "error"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".ndjson"])
def test_rows_come_back(suffix, tmp_path):
    table = table_for(tmp_path / f"x{suffix}")
    parts = []
    for i, rows in enumerate((ROWS, ROWS[:1])):
        parts.append(tmp_path / f"{i}{suffix}")
        write_framed(parts[i], table.encode(rows))
        assert table.decode(read_framed(parts[i])) == rows
    table.join(parts, tmp_path / f"all{suffix}", {"guard": "x"})
    assert table.decode((tmp_path / f"all{suffix}").read_bytes()) == [*ROWS, ROWS[0]]
    (counted,) = table.joined(tmp_path / f"all{suffix}", {"guard": "x"})
    assert [row["file"] for row in counted] == ["a.png", "ü\u2028.png", "c.png", "a.png"]
    assert table.joined(tmp_path / f"all{suffix}", {"guard": "y"}) is None
    assert not list(tmp_path.glob(".*"))


def test_a_parquet_file_says_what_it_was_made_with_in_large_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 6)
    table, parts = table_for(tmp_path / "x.parquet"), []
    for i in range(5):
        parts.append(tmp_path / f"{i}.parquet")
        write_framed(parts[i], table.encode(ROWS))
    table.join(parts, tmp_path / "all.parquet", {"alpha": 0.05})
    file = pq.ParquetFile(tmp_path / "all.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [6, 6, 3]
    assert json.loads(file.schema_arrow.metadata[b"oodream"]) == {"alpha": 0.05}
    assert [str(kind) for kind in file.schema_arrow.types] == list(COLUMNS.values())


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_names_that_are_no_utf8_can_be_stored(suffix, tmp_path):
    table, name = table_for(tmp_path / f"x{suffix}"), os.fsdecode(b"gr\xfcn.png")
    (row,) = table.decode(table.encode([row_of(name, FLAGGED)]))
    assert row["file"] == (name if suffix == ".jsonl" else r"gr\xfcn.png")


def test_a_csv_file_is_what_other_programs_read():
    rows = [*ROWS, row_of('a "b",\r\nc.png', FLAGGED)]
    text = table_for(Path("x.csv")).encode(rows).decode()
    assert text.splitlines()[:2] == [
        ",".join(COLUMNS), '"a.png","unknown",true,2.5,1.0,"boot",0.75,,0.01,'
    ]  # fmt: skip
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file"] for row in read] == [row["file"] for row in rows]
    assert read[1] == dict.fromkeys(COLUMNS, "") | {"file": "ü\u2028.png", "error": "it is damaged"}


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_text_of_a_csv_file_is_a_formula(begins):
    named = replace(FLAGGED, answer=f"{begins}1+1", likeliest=f"{begins}1+1")
    table, rows = table_for(Path("x.csv")), [row_of(f"{begins}1+1.png", named), row_of("a.png", f"{begins}1")]
    first, second = table.decode(table.encode(rows))
    assert first["file"] == f"./{begins}1+1.png"
    assert first["answer"] == first["likeliest"] == f"'{begins}1+1"
    assert second["error"] == f"'{begins}1"
    assert table.decode(table.encode([first, second])) == [first, second]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_damaged_part_is_named_and_joins_to_nothing(suffix, tmp_path):
    table, part = table_for(tmp_path / f"x{suffix}"), tmp_path / f"part{suffix}"
    part.write_bytes(framed(table.encode(ROWS))[:-20])
    with pytest.raises(StoreError, match=r"part\S* is damaged .* run the same command again"):
        table.join([part], tmp_path / f"all{suffix}", {})
    assert [path.name for path in tmp_path.iterdir()] == [part.name]


def test_other_suffixes_and_a_missing_package_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"end in \.parquet, \.csv or \.jsonl .*, and x\.txt in none"):
        table_for(Path("x.txt"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"needs pyarrow, .*: pip install pyarrow, or .*'\.\[hub\]'\. JSON lines"
    ):
        table_for(Path("x.parquet"))
    assert table_for(Path("x.jsonl")).encode([{"a": 1}]) == b'{"a": 1}\n'
