"""A table of many pictures' answers is the same however often the work was killed, and never half of one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from oodream.cli.main import main
from oodream.core.errors import DataError, StoreError
from oodream.core.files import read_json
from oodream.core.storage import Storage
from oodream.deploy import resumed, scoring
from oodream.deploy.guard import Guard
from oodream.deploy.resumed import Tally, score_to
from oodream.deploy.tables import read_part, row_of, table_for
from tests.helpers.bucket import objects
from tests.helpers.guarded import classifier, clothes, encoded, guard

CPU = torch.device("cpu")
N, DAMAGED = 50, (3, 17, 18)
KILLED = """
import os, signal, sys
from oodream.deploy import resumed, scoring
from oodream.deploy.guard import Guard

out, photos, folder = sys.argv[1:]
resumed.PART, scoring.BATCH = 8, 4
calls = []

class Mortal(Guard):
    def of_squares(self, images):
        calls.append(0)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().of_squares(images)

mortal = Guard.load(folder)
object.__setattr__(mortal, "__class__", Mortal)
resumed.score_to(resumed.Path(out), [photos], mortal)
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Fifty garments, of which three are damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for row, data in enumerate(encoded(N, DAMAGED)):
        (folder / f"{row:03}.png").write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(resumed, "PART", 8)


def check(out: Path, photos: Path, predictor=None) -> None:
    """The table holds what the predictor says of each picture, and nothing else is left."""
    rows = read_part(table_for(out), out)
    predictions = list((predictor or guard())(clothes()[1].subset(torch.arange(N)), CPU))
    assert len(rows) == N
    for i, (row, prediction) in enumerate(zip(rows, predictions, strict=True)):
        expected = row_of(str(photos / f"{i:03}.png"), prediction)
        if i in DAMAGED:
            expected = row_of(expected["file"], row["error"])
            assert "cannot identify image file" in row["error"]
        close = [key for key, value in expected.items() if isinstance(value, float)]
        assert [row.pop(key) for key in close] == pytest.approx(
            [expected.pop(key) for key in close], rel=1e-4, abs=2e-3
        )
        assert row == expected
    assert {path.name for path in out.parent.iterdir()} == written(out)


def written(out: Path) -> set[str]:
    """The names of what a finished table consists of."""
    return {out.name} if out.suffix == ".parquet" else {out.name, f"{out.name}.about.json"}


@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv", "answers.jsonl"])
def test_a_row_for_each_picture_in_order(name, photos, tmp_path):
    tally = score_to(tmp_path / name, [str(photos)], guard())
    check(tmp_path / name, photos)
    rows = read_part(table_for(tmp_path / name), tmp_path / name)
    flagged = sum(bool(row["flagged"]) for row in rows)
    assert (tally.total, tally.flagged, tally.unread) == (N, flagged, 3)
    assert 0 < flagged < N
    assert [line.partition(": ")[0] for line in tally.first_unread] == [
        str(photos / f"{i:03}.png") for i in DAMAGED
    ]


@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv", "answers.jsonl"])
def test_a_name_with_a_line_break_is_a_row_like_others(name, photos, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for called, source in (("a\nb.png", "000.png"), ("c.png", "001.png")):
        shutil.copy(photos / source, pictures / called)
    tally = score_to(tmp_path / name, [str(pictures)], guard())
    rows = read_part(table_for(tmp_path / name), tmp_path / name)
    assert [row["file"] for row in rows] == [str(pictures / "a\nb.png"), str(pictures / "c.png")]
    assert (tally.total, tally.unread) == (2, 0)
    assert score_to(tmp_path / name, [str(pictures)], guard()).before


def test_one_picture_is_no_pictures():
    assert str(Tally(total=1)).startswith("1 picture, ")
    assert Tally(unread=1).not_read == "1 picture cannot be read"
    assert Tally(unread=2000).not_read == "2,000 pictures cannot be read"


@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv", "answers.jsonl"])
def test_a_killed_process_leaves_whole_parts_that_the_next_one_keeps(
    name, photos, guard_folder, tmp_path, monkeypatch
):
    out, parts = tmp_path / name, tmp_path / f"{name}.parts"
    monkeypatch.setattr(scoring, "BATCH", 4)
    command = [sys.executable, "-c", KILLED, str(out), str(photos), str(guard_folder)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not out.exists()
    kept = sorted(parts.glob(f"part-*{out.suffix}"))
    assert [len(read_part(table_for(out), part)) for part in kept] == [8, 8, 8]
    times = [part.stat().st_mtime_ns for part in kept]
    torn = parts / f".part-000003{out.suffix}.0badcafe"  # what a kill in the middle of writing leaves
    torn.write_bytes(kept[0].read_bytes()[:50])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumed, "_remove", lambda folder, parts: None)
        tally = score_to(out, [str(photos)], guard())
    assert [part.stat().st_mtime_ns for part in kept] == times
    shutil.rmtree(parts)
    check(out, photos)
    (tmp_path / "calm").mkdir()
    score_to(tmp_path / "calm" / name, [str(photos)], guard())
    assert (tmp_path / "calm" / name).read_bytes() == out.read_bytes()
    assert (tally.total, tally.unread) == (N, 3)


def test_a_kill_at_the_very_end_is_mended(photos, tmp_path, monkeypatch):
    """The table is whole, and the folder of its parts has not been removed."""
    out = tmp_path / "answers.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumed, "_remove", lambda folder, parts: None)
        score_to(out, [str(photos)], guard())
    (tmp_path / "answers.parquet.parts" / "part-000002.parquet").unlink()
    assert score_to(out, [str(photos)], guard()).total == N
    check(out, photos)


def test_a_kill_while_parts_are_removed_is_mended(photos, tmp_path):
    """Whatever is gone first, nothing is left that is taken for somebody else's."""
    out = tmp_path / "answers.parquet"

    def stopped(folder: Path) -> None:
        (folder / "begun.json").unlink()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumed.shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            score_to(out, [str(photos)], guard())
    tally = score_to(out, [str(photos)], guard())
    assert (tally.before, tally.total) == (True, N)
    check(out, photos)


def begun(out: Path, photos: Path) -> None:
    """Begins a table, and stops after two parts."""

    class Stopped(Exception):
        pass

    calls = []

    def write(*args):
        calls.append(args)
        if len(calls) == 3:
            raise Stopped
        written(*args)

    written = resumed.write_framed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumed, "write_framed", write)
        with pytest.raises(Stopped):
            score_to(out, [str(photos)], guard())


def test_another_guard_alpha_or_list_is_refused(photos, tmp_path):
    out = tmp_path / "answers.parquet"
    begun(out, photos)
    before = {path: path.read_bytes() for path in (tmp_path / "answers.parquet.parts").glob("[!.]*")}
    for other, message in (
        (guard().at(0.5), r"begun with another alpha \(0\.05, and now 0\.5\)\. Run the command"),
        (guard("knn"), "begun with another guard. Run the command"),
        (classifier(), "begun with another guard"),
        (replace(guard(), threshold=0.0), r"another threshold \(.*, and now 0\.0\)"),
        (replace(guard(), classifier=replace(classifier(), names=("a", "b", "c", "d"))), "another guard"),
    ):
        with pytest.raises(StoreError, match=message):
            score_to(out, [str(photos)], other)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "001.png", other)
    with pytest.raises(
        StoreError,
        match=r"other pictures, .*changed \(50, and now 51\).*\n?.*parts/pictures\.txt",
    ):
        score_to(out, [str(photos), str(other)], guard())
    assert {path: path.read_bytes() for path in before} == before
    score_to(out, [str(tmp_path / "answers.parquet.parts" / "pictures.txt")], guard())
    shutil.rmtree(other)
    check(out, photos)


def test_a_file_of_somebody_elses_is_not_written_over(photos, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text("mine\n")
    with pytest.raises(StoreError, match=r"answers\.jsonl is there already, .*Remove it to score anew"):
        score_to(out, [str(photos)], guard())
    assert out.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv", "answers.jsonl"])
def test_a_finished_table_of_the_same_answers_says_so(name, photos, tmp_path, monkeypatch):
    """A job that is tried again can tell that it is done, and by what."""
    out = tmp_path / name
    first = score_to(out, [str(photos)], guard())
    before = out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "of_squares", refused)
        again = score_to(out, [str(photos)], guard())
    assert again == replace(first, before=True)
    assert str(again).endswith("3 not read; it was finished before")
    for places, other in (
        ([str(photos)], guard().at(0.5)),
        ([str(photos)], guard("knn")),
        ([str(photos / "001.png")], guard()),
    ):
        with pytest.raises(StoreError, match="is there already"):
            score_to(out, places, other)
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == written(out)


def test_json_lines_that_were_changed_since_are_not_taken_for_finished(photos, tmp_path):
    out = tmp_path / "answers.jsonl"
    score_to(out, [str(photos)], guard())
    lines = out.read_text()
    about = tmp_path / "answers.jsonl.about.json"
    for table, said in ((lines.partition("\n")[2], about.read_text()), (lines, "[]"), (lines, "torn")):
        out.write_text(table)
        about.write_text(said)
        with pytest.raises(StoreError, match="is there already"):
            score_to(out, [str(photos)], guard())
    about.unlink()  # as one that an earlier version wrote
    with pytest.raises(StoreError, match="is there already"):
        score_to(out, [str(photos)], guard())


def test_a_folder_of_somebody_elses_stays(photos, tmp_path):
    parts = tmp_path / "answers.jsonl.parts"
    parts.mkdir()
    (parts / "thesis.tex").write_text("x")
    with pytest.raises(
        StoreError, match=r"answers\.jsonl\.parts holds something that is not of this program"
    ):
        score_to(tmp_path / "answers.jsonl", [str(photos)], guard())
    assert [path.name for path in tmp_path.rglob("*")] == ["answers.jsonl.parts", "thesis.tex"]


def test_what_is_refused_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="no picture to read"):
        score_to(tmp_path / "answers.jsonl", [str(tmp_path)], guard())
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_stopped_while_it_listed_is_no_hindrance(photos, tmp_path):
    parts = tmp_path / "answers.jsonl.parts"
    parts.mkdir()
    for name in (".lock", ".pictures.txt.new", "pictures.txt"):
        (parts / name).write_text("torn")
    score_to(tmp_path / "answers.jsonl", [str(photos)], guard())
    check(tmp_path / "answers.jsonl", photos)


def test_two_processes_do_not_write_one_table(photos, tmp_path):
    import filelock

    out = tmp_path / "answers.jsonl"
    (tmp_path / "answers.jsonl.parts").mkdir()
    with (
        filelock.FileLock(tmp_path / "answers.jsonl.parts" / ".lock"),
        pytest.raises(StoreError, match="Another oodream process is working in"),
    ):
        score_to(out, [str(photos)], guard())


def test_a_damaged_part_is_named_and_made_again(photos, tmp_path):
    out = tmp_path / "answers.parquet"
    begun(out, photos)
    part = tmp_path / "answers.parquet.parts" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.warns(UserWarning, match=r"part-000000\.parquet is damaged: its pictures are answered again"):
        score_to(out, [str(photos)], guard())
    check(out, photos)


def test_a_classifier_without_a_guard_has_no_p_values(photos, tmp_path):
    out = tmp_path / "answers.jsonl"
    score_to(out, [str(photos)], classifier())
    check(out, photos, classifier())
    assert {row["p_value"] for row in read_part(table_for(out), out)} == {None}


def test_the_command(photos, guard_folder, tmp_path, capsys):
    out = tmp_path / "answers.parquet"
    args = ["score", str(photos), "--run", str(guard_folder), "--device", "cpu", "--out"]
    assert main([*args, str(tmp_path / "answers.tsv")]) == 2
    assert "answers.tsv in none of these" in capsys.readouterr().err
    assert main([*args, str(out), "--json"]) == 2
    assert "--json prints, and --out writes" in capsys.readouterr().err
    assert main([*args, str(out), "--alpha", "0.1"]) == 2  # some cannot be read
    captured = capsys.readouterr()
    assert f"{out}: 50 pictures, " in captured.out
    assert "3 pictures cannot be read:\n  " in captured.err
    assert "017.png: cannot identify" in captured.err
    check(out, photos, guard().at(0.1))
    assert main([*args, str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    begun(tmp_path / "b.jsonl", photos)
    assert read_json(tmp_path / "b.jsonl.parts" / "begun.json")["alpha"] == 0.05
    assert main([*args, str(tmp_path / "b.jsonl"), "--alpha", "0.1"]) == 2
    assert "begun with another alpha (0.05, and now 0.1)" in capsys.readouterr().err


@pytest.mark.parametrize("out", [(), ("--out", "answers.jsonl")])
def test_a_text_that_is_no_list_was_read_as_one(out, guard_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hi\n")
    assert main(["score", "notes.txt", "--run", str(guard_folder), "--device", "cpu", *out]) == 2
    said = capsys.readouterr().err
    assert "hi" in said
    assert "read as lists, with the path or URL of a picture in each line: notes.txt" in said


def test_a_table_in_a_bucket(photos, guard_folder, s3, tmp_path, monkeypatch, capsys):
    """It comes there whole; where it cannot be sent, the same command does so and asks of nothing again."""
    score_to(tmp_path / "here.jsonl", [str(photos)], Guard.load(guard_folder))
    args = ["score", str(photos), "--run", str(guard_folder), "--device", "cpu", "--out"]
    assert main([*args, f"{s3}/tables/answers.tsv"]) == 2
    assert "answers.tsv in none of these" in capsys.readouterr().err
    out = f"{s3}/tables/answers.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "send", refused)
        assert main([*args, out]) == 2
    assert "Access Denied. What was made is kept in" in capsys.readouterr().err
    assert objects(s3) == {}
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "of_squares", refused)
        assert main([*args, out]) == 2  # some cannot be read
    captured = capsys.readouterr()
    assert f"{out}: 50 pictures, " in captured.out
    assert "3 pictures cannot be read:\n  " in captured.err
    there = objects(s3)
    assert there == {
        f"tables/answers.jsonl{beside}": (tmp_path / f"here.jsonl{beside}").read_bytes()
        for beside in ("", ".about.json")
    }
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "of_squares", refused)
        assert main([*args, out]) == 2  # some cannot be read
        assert f"{out}: 50 pictures, " in (captured := capsys.readouterr()).out
        assert captured.out.endswith("it was finished before\n")
        assert main([*args, out, "--alpha", "0.5"]) == 2
    assert f"{out} is there already, and does not say" in capsys.readouterr().err
    assert objects(s3) == there
    assert main([*args, f"{s3}-none/answers.jsonl"]) == 2
    assert "Make the bucket first" in capsys.readouterr().err
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"]


def refused(*_, **__):
    raise StoreError("Access Denied.")
