"""The benchmarks' runner and the page of their table name the same lines, and a line can be measured."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER, PAGE = ROOT / "benchmarks", ROOT / "docs" / "performance.md"
COMMAND = re.compile(r"`python benchmarks/(\w+)\.py ([\w-]+)`")


def value(file: Path, name: str) -> ast.expr:
    """What a file assigns to a name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name
    )


FILES: dict[str, str] = ast.literal_eval(value(FOLDER / "__main__.py", "FILES"))


def test_every_line_is_measured_by_the_file_that_the_runner_names():
    lines = {}
    for file in FOLDER.glob("[!_]*.py"):
        if file.stem in FILES.values():
            table = value(file, "LINES")
            assert isinstance(table, ast.Dict)
            lines |= {ast.literal_eval(key): file.stem for key in table.keys if key is not None}
    assert lines == FILES


def test_the_page_names_every_line_with_its_command():
    named = {line: file for file, line in COMMAND.findall(PAGE.read_text(encoding="utf-8"))}
    assert named == FILES


@pytest.fixture
def bench(monkeypatch):
    """The modules `_page` and `_bench`, which are imported as the runner does it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import _bench
    import _page

    yield _page, _bench
    for name in ("_page", "_bench"):
        sys.modules.pop(name)


def test_a_table_takes_the_place_between_its_marks(bench):
    page, rows = bench
    row = rows.Row(
        what="work", value=1234.5, unit="a second", reference="others", ratio=2.5, floor="all", share=0.5
    )
    text = (
        "before\n<!-- cpu -->\nold\n<!-- end of cpu -->\nafter\n<!-- cuda -->\nkept\n<!-- end of cuda -->\n"
    )
    written = page.written(text, "cpu", "a machine", {"sampling": [row, row]}, FILES)
    assert "old" not in written
    assert written.startswith("before\n<!-- cpu -->\n")
    assert written.endswith("after\n<!-- cuda -->\nkept\n<!-- end of cuda -->\n")
    assert "a machine" in written
    cells = "| work | 1,234 a second | 2.5 times others | all: 50 % reached |"
    assert written.count(cells) == 2
    assert COMMAND.findall(written) == [("sample", "sampling")]
    with pytest.raises(ValueError, match="The page has no table for mps"):
        page.written(text, "mps", "a machine", {}, FILES)


def test_a_line_is_measured_once_and_a_broken_one_leaves_the_others(bench, tmp_path, capsys):
    import torch

    _, rows = bench
    calls = []

    def fine(setting):
        calls.append("fine")
        yield rows.Row(what="fine", value=1.0, unit="s")

    def broken(setting):
        yield rows.Row(what="first", value=2.0, unit="s")
        raise RuntimeError("no")

    setting = rows.Setting(device=torch.device("cpu"), tiny=True, room=tmp_path, out=tmp_path)
    for _ in range(2):
        result = rows.measure({"broken": broken, "fine": fine}, setting)
        assert [row.what for row in result["broken"]] == ["first"]
        assert [row.what for row in result["fine"]] == ["fine"]
    assert calls == ["fine"]
    assert "fine: measured before" in capsys.readouterr().out
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert kept["finished"] == ["fine"]


def test_the_cheapest_line_can_be_tried(tmp_path):
    command = [sys.executable, str(FOLDER), "metrics", "--tiny", "--out", str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "metrics: five metrics of 20,000 scores" in said
    rows = json.loads((tmp_path / "rows.json").read_text())["lines"]["metrics"]
    assert [row["reference"] for row in rows] == ["scikit-learn, three metrics", "scikit-learn, one metric"]
    assert all(row["ratio"] > 0 and row["value"] > 0 for row in rows)


def test_an_unknown_line_is_refused_with_those_there_are():
    command = [sys.executable, str(FOLDER), "no-such-line"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "There is no line 'no-such-line'. There are: sampling, alignment" in result.stderr
