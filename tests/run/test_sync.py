"""Folders that are worked in on one machine after another and kept in a bucket. A machine is a folder of
copies.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import fsspec
import pytest

from oodream.core.errors import StoreError
from oodream.core.folders import held
from oodream.run import sync
from oodream.run.sync import fetched, synchronised
from tests.helpers.bucket import KINDS, bucket, objects, write


@pytest.fixture(params=KINDS)
def url(request, monkeypatch):
    with bucket(request.param, monkeypatch) as url:
        yield f"{url}/runs/one"


def texts(folder: Path) -> dict[str, str]:
    files = [f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(".")]
    return {f.relative_to(folder).as_posix(): f.read_text() for f in files}


def abandoned(url: str, *, push: bool = True, **files: str) -> None:
    """Work that is killed: it has opened the folder, written files and, with `push`, sent them."""
    with held(sync.cached_at(url, "runs"), "busy", name=sync.LOCK):
        synced = sync._Synced(sync.Storage(url), sync.cached_at(url, "runs"), print)
        synced.open()
        write(synced.folder, **files)
        if push:
            synced.push()


def test_another_machine_goes_on_with_what_one_has_done(url, machine, capsys):
    machine("a")
    with synchronised(url, print) as folder:
        write(
            folder,
            run_json="{}",
            align__encoder="weights",
            align__stage_json="done",
            cache__x="no",
            process_out="no",
        )
        write(folder, images__imagined__fox__000001_png="fox", _lock="no")
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {
            "run.json": "{}", "align/encoder": "weights", "align/stage.json": "done",
            "images/imagined/fox/000001.png": "fox",
        }  # fmt: skip
        (folder / "align" / "stage.json").unlink()
        (folder / "align" / "encoder").unlink()
        write(folder, run_json="{...}", report__index_html="page")
    machine("a")
    with synchronised(url, print) as folder:
        names = {"run.json", "images/imagined/fox/000001.png", "report/index.html"}
        assert texts(folder).keys() == names | {"cache/x", "process.out"}
        assert texts(folder)["run.json"] == "{...}"
    assert "was at work" not in capsys.readouterr().out, "each had closed it"


def test_what_is_new_is_sent_while_the_work_lasts(url, machine, monkeypatch):
    monkeypatch.setattr(sync, "SECONDS", 0.05)
    machine("a")
    with synchronised(url, print) as folder:
        write(folder, align__encoder="weights", align__stage_json="done")
        deadline = time.monotonic() + 120
        while "align/stage.json" not in objects(url) and time.monotonic() < deadline:
            time.sleep(0.02)
        there = objects(url)
        assert there["align/encoder"] == b"weights"
        assert there["align/stage.json"] == b"done"


def test_a_killed_machine_leaves_what_it_has_sent(url, machine, capsys):
    machine("a")
    abandoned(url, align__encoder="weights", align__stage_json="done")
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"align/encoder": "weights", "align/stage.json": "done"}
    assert "was at work in" in capsys.readouterr().out


def test_on_the_same_machine_what_was_not_sent_is_there_and_goes_on(url, machine):
    machine("a")
    abandoned(url, push=False, align__encoder="weights", align__stage_json="done")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"align/encoder": "weights", "align/stage.json": "done"}
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"align/encoder": "weights", "align/stage.json": "done"}


def test_where_another_machine_has_gone_on_its_work_counts(url, machine):
    machine("a")
    abandoned(url, push=False, align__encoder="old", align__stage_json="old")
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {}
        write(folder, align__encoder="new", align__stage_json="new")
    machine("a")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"align/encoder": "new", "align/stage.json": "new"}


def test_a_machine_that_is_overtaken_is_interrupted(url, machine, monkeypatch):
    interrupted = threading.Event()
    monkeypatch.setattr(sync, "SECONDS", 0.05)
    monkeypatch.setattr(sync._thread, "interrupt_main", interrupted.set)
    machine("a")
    first = synchronised(url, print)
    write(first.__enter__(), align__encoder="first")
    machine("b")
    with synchronised(url, print) as second:
        write(second, align__encoder="second")
        assert interrupted.wait(120)
    with pytest.raises(StoreError, match="Another machine has gone on"):
        first.__exit__(None, None, None)
    machine("c")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"align/encoder": "second"}


def test_two_processes_of_one_machine_are_not_in_one_folder(url, machine):
    machine("a")
    with synchronised(url, print):
        second = synchronised(url, print)
        with pytest.raises(StoreError, match="Another oodream process"):
            second.__enter__()
    with synchronised(url, print):
        pass


def test_what_was_sent_without_an_entry_does_not_count(url, machine):
    """As after a kill between the files and the entry in the journal; nothing older is written over."""
    machine("a")
    abandoned(url, train__resume_state="epoch 1")
    with held(sync.cached_at(url, "runs"), "busy", name=sync.LOCK):
        synced = sync._Synced(sync.Storage(url), sync.cached_at(url, "runs"), print)
        synced.open()
        write(synced.folder, train__resume_state="epoch 2", train__log="new")
        assert {name for name in ("train/resume.state", "train/log") if synced._send(name)}
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"train/resume.state": "epoch 1"}


def test_a_file_that_changes_has_one_version_in_the_bucket(url, machine):
    machine("a")
    for epoch in range(4):
        with synchronised(url, print) as folder:
            write(folder, train__resume_state=f"epoch {epoch}")
    states = {name: data for name, data in objects(url).items() if name.startswith("train/")}
    assert list(states.values()) == [b"epoch 3"]


@pytest.mark.parametrize("gone", [True, False])
def test_a_damaged_object_is_told_and_its_stage_is_not_finished(gone, url, machine, capsys):
    machine("a")
    with synchronised(url, print) as folder:
        write(
            folder,
            align__encoder="weights",
            align__stage_json="done",
            features__x="x",
            features__stage_json="done",
        )
    fs, root = fsspec.core.url_to_fs(url)
    if gone:
        fs.rm_file(f"{root}/align/encoder")
    else:
        fs.pipe_file(f"{root}/align/encoder", b"wEights")
    machine("b")
    with synchronised(url, print) as folder:
        assert texts(folder) == {"features/x": "x", "features/stage.json": "done"}
    said = capsys.readouterr().out
    assert f"align/encoder is {'missing' if gone else 'damaged'}. Its stage is made again." in said


def test_names_that_lead_elsewhere_are_refused(url, machine):
    machine("a")
    with synchronised(url, print) as folder:
        write(folder, a="a")
    storage = sync.Storage(url)
    journal = sync._Journal(storage)
    journal.read()
    journal.write({"../../evil": sync.Kept("a", 1, "")}, open_by="")
    machine("b")
    with pytest.raises(StoreError, match="no name for a file here"), synchronised(url, print):
        pass


def test_some_files_are_fetched(url, machine):
    machine("a")
    with synchronised(url, print) as folder:
        write(folder, run_json="{}", guard__guard_json="g", images__imagined__a_png="a")
        write(folder, run_json="{...}")
    machine("b")
    folder = fetched(url, lambda name: not name.startswith("images/"))
    assert texts(folder) == {"run.json": "{...}", "guard/guard.json": "g"}
    with pytest.raises(StoreError, match="There is nothing at"):
        fetched(f"{url}-other", lambda name: True)


def test_a_bucket_that_fails_for_a_while_is_tried_again(url, machine, monkeypatch, capsys):
    monkeypatch.setattr(sync, "SECONDS", 0.05)
    machine("a")
    send, failures = sync.Storage.send, []

    def failing(self, file, name):
        if len(failures) < 3:
            failures.append(name)
            raise StoreError("The server says 503.")
        send(self, file, name)

    monkeypatch.setattr(sync.Storage, "send", failing)
    with synchronised(url, print) as folder:
        write(folder, align__encoder="weights")
        deadline = time.monotonic() + 120
        while "align/encoder" not in objects(url) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(failures) == 3
    assert "The server says 503. It is tried again." in capsys.readouterr().out
    assert objects(url)["align/encoder"] == b"weights"
