"""What people decide about imagined rows: written whole, read with mercy, undone, and obeyed."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oodream.cli.main import main
from oodream.core.errors import StoreError
from oodream.core.files import read_json, read_json_lines
from oodream.run.artifacts import Run
from oodream.run.curation import REJECTED, Curation, decide, read_decisions, undo
from oodream.run.folder import inputs_hash
from tests.helpers.runs import command

OF = "images-1"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "curation.jsonl"


def states(file: Path, of: str = OF) -> dict[int, bool]:
    return Curation(read_decisions(file), of).states


def test_the_last_line_of_a_row_counts(file):
    assert states(file) == {}
    decide(file, OF, {1: False, 2: False})
    decide(file, OF, {2: True, 3: False})
    assert states(file) == {1: False, 2: True, 3: False}
    curation = decide(file, OF, {3: None})
    assert curation.states == states(file) == {1: False, 2: True}
    assert (curation.rejected, curation.kept) == ([1], [2])
    lines = read_json_lines(file)
    assert [(line["row"], line["keep"]) for line in lines] == [
        (1, False), (2, False), (2, True), (3, False), (3, None),
    ]  # fmt: skip
    assert {line["by"] for line in lines} == {"person"}


def test_what_changes_nothing_is_not_written(file):
    decide(file, OF, {1: False})
    before = file.read_bytes()
    decide(file, OF, {1: False, 2: None})
    assert file.read_bytes() == before


def test_decisions_about_other_images_do_not_count(file):
    decide(file, OF, {1: False})
    decide(file, "images-2", {4: False})
    assert states(file) == {1: False}
    assert states(file, "images-2") == {4: False}
    with pytest.raises(ValueError, match="nothing to undo"):
        undo(file, "images-3")


batches = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, 5), st.sampled_from([True, False, None]), min_size=1),
        st.just("undo"),
    ),
    max_size=12,
)


@given(batches)
def test_undo_goes_back_step_by_step(tmp_path_factory, steps):
    """Against a stack of all states there were."""
    file, stack = tmp_path_factory.mktemp("undo") / "curation.jsonl", [{}]
    for step in steps:
        if step == "undo":
            if len(stack) > 1:
                stack.pop()
                assert undo(file, OF)[0].states == stack[-1]
            else:
                with pytest.raises(ValueError, match="nothing to undo"):
                    undo(file, OF)
            continue
        new = {row: keep for row, keep in {**stack[-1], **step}.items() if keep is not None}
        decide(file, OF, step)
        if new != stack[-1]:
            stack.append(new)
    assert states(file) == stack[-1]


@pytest.mark.parametrize("kept", range(1, 20))
def test_a_line_that_was_cut_short_is_ignored_and_mended(file, kept):
    decide(file, OF, {1: False})
    whole = file.read_bytes()
    decide(file, OF, {2: False})
    cut = file.read_bytes()[: len(whole) + kept]
    file.write_bytes(cut)
    assert states(file) == {1: False}
    assert file.read_bytes() == cut, "reading changes nothing"
    decide(file, OF, {3: False})
    assert states(file) == {1: False, 3: False}
    assert len(read_json_lines(file)) == 2


def test_a_line_without_an_end_is_whole(file):
    decide(file, OF, {1: False})
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert states(file) == {1: False}
    decide(file, OF, {2: True})
    assert states(file) == {1: False, 2: True}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2"),
        ("[1]", "line 2, is no decision \\(it is no JSON object"),
        ('{"row": 3}', "it has no 'keep'"),
        ('{"row": -1, "keep": false, "at": "", "by": "", "of": ""}', "its 'row' is -1"),
        ('{"row": true, "keep": false, "at": "", "by": "", "of": ""}', "its 'row' is True"),
        ('{"row": 1, "keep": "no", "at": "", "by": "", "of": ""}', "its 'keep' is 'no'"),
        ("\xff", "line 2"),
    ],
)
def test_a_damaged_line_is_named(file, line, words):
    decide(file, OF, {1: False})
    whole = file.read_bytes()
    file.write_bytes(whole + line.encode("latin-1") + b"\n" + whole)
    for attempt in (lambda: read_decisions(file), lambda: decide(file, OF, {2: False})):
        with pytest.raises(StoreError, match=words):
            attempt()
    assert file.read_bytes() == whole + line.encode("latin-1") + b"\n" + whole


def test_a_link_is_not_followed(file, tmp_path):
    target = tmp_path / "elsewhere.txt"
    target.write_text("")
    file.symlink_to(target)
    for attempt in (lambda: read_decisions(file), lambda: decide(file, OF, {1: False})):
        with pytest.raises(StoreError, match="is a link"):
            attempt()
    assert target.read_text() == ""


def _decide_some(file: Path, first: int) -> None:
    for row in range(first, first + 20):
        decide(file, OF, {row: False})


def test_processes_that_write_at_once_lose_nothing(file):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_decide_some, args=(file, 100 * i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert sorted(states(file)) == [100 * i + j for i in range(3) for j in range(20)]


def of(run: Path) -> str:
    return inputs_hash(read_json(run / "images" / "imagined" / "stage.json")["inputs"])


def test_a_run_obeys_people_before_filters(copied):
    before = Run.open(copied)
    kept, dropped = before.keep_mask.nonzero()[:, 0].tolist(), (~before.keep_mask).nonzero()[:, 0].tolist()
    decide(copied / "curation.jsonl", of(copied), {kept[0]: False, **dict.fromkeys(dropped[:1], True)})
    run = Run.open(copied)
    assert run.keep_mask.tolist() == [
        m not in kept[:1] and (mask or m in dropped[:1]) for m, mask in enumerate(before.keep_mask.tolist())
    ]
    assert run.drop_reasons[kept[0]] == REJECTED
    assert [not reason for reason in run.drop_reasons] == run.keep_mask.tolist()
    assert torch.equal(run.selection.filter_mask, before.keep_mask)


def test_a_row_that_there_is_not_is_refused(copied):
    decide(copied / "curation.jsonl", of(copied), {99: False})
    with pytest.raises(StoreError, match="row 99, and the run has rows 0 to 23"):
        _ = Run.open(copied).keep_mask


def test_the_same_command_trains_again_without_what_was_rejected(copied, shapes, tiny_pipeline, capsys):
    file, stage = copied / "curation.jsonl", copied / "classifier" / "regularized-s0"
    before = read_json(stage / "stage.json")
    kept = Run.open(copied).keep_mask.nonzero()[:, 0].tolist()
    untouched = {
        name: (copied / name / "stage.json").read_bytes()
        for name in ("filter", "images/imagined", "classifier/baseline-s0", "vectors")
    }
    args = command(shapes, tiny_pipeline, copied)

    decide(file, of(copied), dict.fromkeys(kept[:3], False))
    assert main(args) == 0
    after = read_json(stage / "stage.json")
    assert after["inputs"]["curation"] == {
        "rejected": 3,
        "kept": 0,
        "rows": after["inputs"]["curation"]["rows"],
    }
    assert after["summary"]["outliers"] == before["summary"]["outliers"] - 3
    assert after["summary"]["rejected"] == 3
    assert "rejected 3" in capsys.readouterr().out
    page = re.sub(r"\s+", " ", (copied / "report" / "index.html").read_text())
    assert "A person looked at them, rejected 3." in page
    assert {name: (copied / name / "stage.json").read_bytes() for name in untouched} == untouched

    undo(file, of(copied))
    assert main(args) == 0
    assert read_json(stage / "stage.json")["inputs"] == before["inputs"], "as if nobody had decided"
    assert main(args) == 0
    assert "classifier/regularized-s0 done before" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--regularize.max-outliers", "5"], "regularize.max_outliers"),
        (["--evaluate.n-far", "20"], "evaluate.n_far"),
    ],
)
def test_what_is_stale_for_other_reasons_is_still_refused(
    copied, shapes, tiny_pipeline, capsys, options, words
):
    kept = Run.open(copied).keep_mask.nonzero()[:, 0].tolist()
    decide(copied / "curation.jsonl", of(copied), {kept[0]: False})
    stamp = (copied / "classifier" / "regularized-s0" / "stage.json").read_bytes()
    args = command(shapes, tiny_pipeline, copied, *options)
    assert main(args) == 2
    assert words in capsys.readouterr().err
    assert (copied / "classifier" / "regularized-s0" / "stage.json").read_bytes() == stamp


def test_a_damaged_file_is_refused_before_work(copied, shapes, tiny_pipeline, capsys):
    (copied / "curation.jsonl").write_text('{"row": 1}\n')
    assert main(command(shapes, tiny_pipeline, copied)) == 2
    assert "curation.jsonl, line 1, is no decision" in capsys.readouterr().err


def test_all_may_not_be_rejected(copied, shapes, tiny_pipeline, capsys):
    decide(copied / "curation.jsonl", of(copied), dict.fromkeys(range(24), False))
    assert main(command(shapes, tiny_pipeline, copied)) == 2
    assert "a person rejected 24 of 24" in capsys.readouterr().err
    assert (copied / "classifier" / "regularized-s0" / "stage.json").exists()


def test_lines_are_json_that_others_can_read(file):
    decide(file, OF, {1: False})
    line = json.loads(file.read_text(encoding="utf-8"))
    assert (line["row"], line["keep"], line["by"], line["of"]) == (1, False, "person", OF)
    assert os.stat(file).st_mode & 0o111 == 0


def test_a_clock_that_was_set_back_makes_no_two_decisions_one(file, monkeypatch):
    """They are undone by their times."""

    class Stopped(datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 1, tzinfo=zone)

    monkeypatch.setattr("oodream.run.curation.datetime", Stopped)
    decide(file, OF, {1: False})
    decide(file, OF, {2: False})
    assert undo(file, OF)[1] == [2]
    assert states(file) == {1: False}


def test_a_decision_that_has_changed_is_no_decision(file):
    decide(file, OF, {1: False, 2: True})
    text = file.read_text()
    file.write_text(text.replace('"row": 2', '"row": 3'))
    with pytest.raises(StoreError, match=r"line 2, is no decision \(it has changed since it was written"):
        read_decisions(file)
    line = json.loads(text.splitlines()[1])
    del line["check"]  # as a person may write it
    file.write_text(json.dumps({**line, "row": 3}))
    assert states(file) == {3: True}
