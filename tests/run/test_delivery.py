"""What is made for a bucket comes there whole or not at all, whatever is killed and whoever else writes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pytest

from oodream.core.errors import StoreError
from oodream.core.options import ConfigError
from oodream.core.storage import Storage
from oodream.run import delivery
from oodream.run.delivery import delivered
from tests.helpers.bucket import KINDS, bucket, objects, write

CLAIM = ".oodream/sending.json"
KILLED = """
import os, signal, sys
from oodream.core.storage import Storage
from oodream.run import delivery

sent, send, delivery.THREADS = [], Storage.send, 1

def mortal(self, file, name):
    send(self, file, name)
    sent.append(name)
    if len(sent) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

Storage.send = mortal
with delivery.delivered(sys.argv[1], last="config.json") as folder:
    folder.mkdir()
    for name in ("a", "b", "config.json"):
        (folder / name).write_text(name)
"""


@pytest.fixture(params=KINDS)
def url(request, monkeypatch):
    with bucket(request.param, monkeypatch) as url:
        yield f"{url}/some/place"


@pytest.fixture(autouse=True)
def _first_machine(machine):
    machine("a")


@contextmanager
def failing(after: int, error: type[BaseException] = StoreError) -> Iterator[None]:
    """The server fails when it has taken so many files of a folder."""
    sent, send = [], Storage.send

    def failing_send(self, file, name):
        if len(sent) == after:
            raise error("The server says 503.")
        sent.append(name)
        send(self, file, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "send", failing_send)
        patch.setattr(delivery, "THREADS", 1)
        yield


FILES = {"weights": "w", "report_html": "page", "graph__guard_onnx": "graph", "config_json": "{}"}
THERE = {"weights": b"w", "report.html": b"page", "graph/guard.onnx": b"graph", "config.json": b"{}"}


def make(url: str, **files: str) -> None:
    with delivered(url, last="config.json") as folder:
        write(folder, **(files or FILES))


def test_a_file_comes_when_it_is_whole(url, tmp_path):
    with delivered(url) as path:
        assert path.name == "place"
        path.write_text("half")
        assert objects(url) == {}
        path.write_text("whole")
    assert fsspec.core.url_to_fs(url)[0].cat_file(url) == b"whole"
    assert not [file for file in (tmp_path / "a").rglob("*") if file.is_file()], "nothing stays here"


def test_a_folder_comes_when_it_is_whole_and_its_last_file_behind_all_others(url, tmp_path, monkeypatch):
    sent, send = [], Storage.send
    monkeypatch.setattr(Storage, "send", lambda self, file, name: (sent.append(name), send(self, file, name)))
    make(url, _hidden="h", cache__class="c", **FILES)
    assert objects(url) == {**THERE, "cache/class": b"c"}
    assert sent[-1] == "config.json"
    assert not [file for file in (tmp_path / "a").rglob("*") if file.is_file()], "nothing stays here"


def killed(url: str) -> None:
    """A command that is killed, with a file half written and parts of it that are whole."""
    work = delivered(url)
    path = work.__enter__()
    path.with_name(f"{path.name}.parts").write_text("some")
    path.write_text("half")
    with suppress(KeyboardInterrupt):
        work.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def test_what_a_killed_command_has_begun_is_there_for_the_same_one(url):
    killed(url)
    assert objects(url) == {}
    with delivered(url) as path:
        assert path.with_name("place.parts").read_text() == "some"
        assert not path.exists()
        path.write_text("whole")
    with delivered(f"{url}-other") as path:
        assert not path.with_name("place.parts").exists()
        path.write_text("x")


def test_what_is_begun_for_a_place_within_another_is_not_sent_to_that_one(url):
    killed(f"{url}/within")
    make(url)
    assert objects(url) == THERE
    with delivered(f"{url}/within") as path:
        assert path.with_name("within.parts").read_text() == "some"
        path.write_text("whole")


def test_a_folder_that_is_taken_is_refused_before_the_work(url):
    with delivered(url, "config.json") as path:
        write(path, config_json="first")
    before, begun = objects(url), []
    with pytest.raises(StoreError, match="place holds something already"), delivered(url, "config.json"):
        begun.append(True)
    assert not begun
    assert objects(url) == before


def test_a_file_that_is_there_is_found_and_may_stay_but_no_other_takes_its_place(url):
    def make_file(text: str) -> list[str]:
        with delivered(url, beside=".about") as path:
            files = path, path.with_name("place.about")
            found = [file.read_text() for file in files if file.exists()]
            if found != [text, text]:
                for file in files:
                    file.write_text(text)
        return found

    above = url.rpartition("/")[0]
    assert make_file("first") == []
    before = objects(above)
    assert sorted(before.values()) == [b"first", b"first"]
    assert make_file("first") == ["first", "first"]
    with pytest.raises(StoreError, match=r"place is there already.* What was made is kept in"):
        make_file("second")
    assert objects(above) == before


def test_an_empty_folder_that_a_console_has_made_is_free(url):
    storage = Storage(url.rpartition("/")[0])
    if storage.fs.protocol == "memory":
        storage.fs.makedirs(f"{storage.root}/place")
    else:
        storage.fs.pipe_file(f"{storage.root}/place/", b"")
    make(url)
    assert THERE.items() <= objects(url).items()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(url, monkeypatch):
    begun = []

    def denied(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(Storage(url).fs, "pipe_file", denied)
    for last in (None, ""):
        with pytest.raises(StoreError, match="may not be read or written"), delivered(url, last):
            begun.append(True)
    assert not begun


def test_a_name_is_needed():
    for url in ("memory://bucket", "memory://bucket/"):
        with pytest.raises(ConfigError, match="Name a place in it: memory://bucket/NAME"), delivered(url):
            pass
    with pytest.raises(ConfigError, match="leads upwards"), delivered("memory://bucket/../x"):
        pass


@pytest.mark.parametrize(("after", "error"), [(0, StoreError), (1, KeyboardInterrupt), (3, StoreError)])
def test_a_half_sent_folder_is_known_as_such_and_sent_by_the_same_command(url, machine, after, error):
    with pytest.raises(error), failing(after, error):
        make(url)
    assert "config.json" not in objects(url)
    assert CLAIM in objects(url)
    machine("b")
    with pytest.raises(StoreError, match=r"Another machine is sending to .*, or was killed at it"):
        make(url)
    machine("a")
    make(url)
    assert objects(url) == THERE


@pytest.mark.parametrize("after", [1, 2])
def test_a_process_that_is_killed_while_it_sends_holds_nothing(s3, after):
    url = f"{s3}/some/place"
    ended = subprocess.run([sys.executable, "-c", KILLED, url, str(after)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert objects(url).keys() == {CLAIM, *("a", "b")[:after]}
    make(url)
    assert objects(url) == THERE


def test_what_was_half_sent_leaves_nothing_behind_when_other_files_are_made(url):
    with pytest.raises(StoreError), failing(3):
        make(url)
    make(url, config_json="{}")
    assert objects(url) == {"config.json": b"{}"}


def test_a_file_that_cannot_be_sent_is_sent_by_the_same_command(url, monkeypatch):
    def refused(*_):
        raise StoreError("The server says 503.")

    def make_file() -> None:
        with delivered(url) as path:
            path.with_name("place.parts").mkdir(exist_ok=True)
            path.write_text("whole")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "send_new", refused)
        with pytest.raises(
            StoreError, match=r"says 503\. What was made is kept in .*place/\.begun"
        ) as caught:
            make_file()
    begun = Path(str(caught.value).partition("is kept in ")[2].partition(":")[0])
    assert {path.name for path in begun.iterdir()} == {".lock", "place", "place.parts"}
    make_file()
    assert Storage(url).read() == b"whole"


@pytest.mark.parametrize("last", [None, "config.json"])
def test_what_another_machine_has_made_meanwhile_is_not_written_over(url, machine, last):
    first = delivered(url, last)
    path = first.__enter__()
    write(path, config_json="first") if last else path.write_text("first")
    machine("b")
    with delivered(url, last) as path:
        write(path, config_json="second") if last else path.write_text("second")
    before = objects(url)
    with pytest.raises(StoreError, match=r"(is there already|holds something).* What was made is kept in"):
        first.__exit__(None, None, None)
    assert objects(url) == before


def test_two_machines_do_not_send_to_one_folder(url, machine):
    first = delivered(url, "config.json")
    write(first.__enter__(), **FILES)
    machine("b")
    with pytest.raises(StoreError), failing(2):
        make(url)
    there = objects(url)
    with pytest.raises(StoreError, match="Another machine is sending to"):
        first.__exit__(None, None, None)
    assert objects(url) == there
    make(url)
    assert objects(url) == THERE


def test_two_processes_of_one_machine_do_not_make_one_place(url):
    with delivered(url) as path:
        with pytest.raises(StoreError, match="Another oodream process is making"), delivered(url):
            pass
        path.write_text("x")


def test_a_folder_that_is_written_again_keeps_its_cache_here(url):
    def measure(text: str) -> bool:
        with delivered(url, last="evaluation.json", again=True) as folder:
            known = (folder / "cache" / "outputs").exists()
            write(folder, cache__outputs="o", results_md=text, evaluation_json=text)
        return known

    assert not measure("first")
    assert measure("second")
    assert objects(url) == {"results.md": b"second", "evaluation.json": b"second"}
    with pytest.raises(StoreError), failing(1):
        measure("third")
    assert "evaluation.json" not in objects(url), "what is there is not whole, and does not look so"
    assert measure("fourth")
    assert objects(url) == {"results.md": b"fourth", "evaluation.json": b"fourth"}
