"""Run: what starts a run, and what is refused; runs that outlive the studio."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from oodream.core.errors import StoreError
from oodream.core.files import read_json, write_bytes, write_json
from oodream.run.layout import Layout
from oodream.run.process import Status, process_of
from oodream.studio import jobs
from oodream.studio.app import create_app
from oodream.studio.jobs import NewRun, arguments_of, begun_below, resumed
from oodream.studio.studio import Studio
from tests.helpers.studio import WAIT, imagined_run, studio


def asking(root: Path, *runs: Path, starts_runs: bool = True) -> TestClient:
    app = create_app(Studio(runs, root, device="cpu", starts_runs=starts_runs))
    return TestClient(app, base_url="http://127.0.0.1:8700")


@pytest.fixture
def copied(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "runs" / "copy"))


def test_a_run_is_a_few_known_words(shapes, tmp_path):
    words = arguments_of(NewRun(name="new", data=str(shapes), seeds=3), tmp_path / "new")
    assert words == ["run", "--preset=folder", f"--data={shapes}", "--seeds=3", f"--run={tmp_path / 'new'}"]
    assert arguments_of(NewRun(name="new", preset="demo"), tmp_path)[2] == "--data=fashion"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"preset": "none"}, "There is no preset 'none'"),
        ({"name": "../out"}, "A run's name has"),
        ({"name": ".hidden"}, "A run's name has"),
        ({"name": "a/b"}, "A run's name has"),
        ({"name": "-x"}, "A run's name has"),
        ({"data": ""}, "Which images?"),
        ({"data": "/nothing/here"}, "/nothing/here is not a folder"),
        ({"data": "--redo"}, "is not a folder"),
    ],
)
def test_what_cannot_be_is_said_in_the_librarys_words(tmp_path, asked, sentence):
    answer = asking(tmp_path).post("/api/run", json={"name": "new", "data": str(tmp_path), **asked})
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert list(tmp_path.iterdir()) == []


def test_images_that_the_run_would_refuse_start_none(tmp_path):
    """Known before a picture is opened: these could not be."""
    data, root = tmp_path / "data", tmp_path / "runs"
    for i in range(20):
        write_bytes(data / "cats" / f"{i}.png", b"")
    answer = asking(root).post("/api/run", json={"name": "new", "data": str(data)})
    assert answer.status_code == 422
    assert "has only one class (cats)" in answer.json()["detail"]
    assert not root.exists()


def test_a_folder_of_other_things_is_not_run_in(shapes, tmp_path):
    write_bytes(tmp_path / "mine" / "thesis.txt", b"")
    with pytest.raises(StoreError, match="is no run, and holds something"):
        arguments_of(NewRun(name="mine", data=str(shapes)), tmp_path / "mine")


def test_only_known_options_are_taken(tmp_path):
    for more in ({"options": "--plugins"}, {"seeds": "1; true"}, {"seeds": 0}, {"name": "x" * 65}):
        answer = asking(tmp_path).post("/api/run", json={"name": "new", "data": str(tmp_path), **more})
        assert answer.status_code == 422
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_there_is_not_begun_anew(copied, shapes):
    with pytest.raises(StoreError, match="There is a run 'copy' already"):
        arguments_of(NewRun(name="copy", data=str(shapes)), copied)


def test_a_studio_that_others_reach_starts_nothing(copied, shapes):
    client = asking(copied.parent, copied, starts_runs=False)
    asked = {"name": "new", "data": str(shapes)}
    for path, body in (("", asked), ("/copy/resume", {}), ("/copy/stop", {})):
        answer = client.post(f"/api/run{path}", json=body)
        assert answer.status_code == 403
        assert "from this machine alone" in answer.json()["detail"]
    assert [one["name"] for one in client.get("/api/run").json()] == ["copy"]
    assert "Start a run" not in client.get("/run").text
    assert not Layout(copied).process.exists()


def test_a_run_from_elsewhere_goes_on_by_its_recorded_options(copied):
    """To the end, in a process of its own."""
    shutil.rmtree(copied / "report")
    client = asking(copied.parent, copied)
    before = client.get("/api/run").json()[0]
    assert before["state"] == "elsewhere"
    assert [stage["name"] for stage in before["stages"] if stage["state"] == "waiting"] == ["report"]
    started = client.post("/api/run/copy/resume", json={}).json()
    assert (started["state"], started["stages"], started["left"]) == ("running", [], None), "no plan yet"
    deadline = time.monotonic() + 300
    while (now := client.get("/api/run").json()[0])["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert (now["state"], now["message"]) == ("done", "")
    assert (copied / "report" / "index.html").is_file()
    assert Layout(copied).said.read_text().count("done before") == len(now["stages"]) - 1


def test_a_run_with_the_code_of_others_is_not_resumed_unasked(copied):
    manifest = read_json(copied / "run.json")
    manifest["config"]["decode"]["decoder"] = "evil:Decoder"
    write_json(copied / "run.json", manifest)
    with pytest.raises(StoreError, match="names the plug-in 'evil:Decoder'"):
        resumed(copied, changed=False, plugins=False)
    assert resumed(copied, changed=True, plugins=True)[-1] == "--redo=changed"


def test_a_damaged_run_does_not_hide_the_others(copied, finished):
    (copied / "run.json").write_text("[]")
    states = [one["state"] for one in asking(copied.parent, copied, finished).get("/api/run").json()]
    assert sorted(states) == ["damaged", "done"]


def test_the_newest_run_comes_first_and_before_it_those_at_work(tmp_path, monkeypatch):
    runs = [imagined_run(tmp_path / name, 1) for name in ("a", "b", "c", "d")]
    for run, age in zip(runs, (30, 10, 40, 20), strict=True):
        os.utime(run / "run.json", (1e9 - age, 1e9 - age))
    monkeypatch.setattr(jobs, "status", lambda folder, _: Status(state=states[folder.name], stages=[]))
    states = dict.fromkeys("abcd", "done") | {"a": "running", "c": "stopping"}
    listed = asking(tmp_path, *runs).get("/api/run").json()
    assert [one["name"] for one in listed] == ["a", "c", "b", "d"]


def test_a_run_that_was_refused_says_why_and_is_not_resumed(tmp_path, page):
    expect = pytest.importorskip("playwright.sync_api").expect
    layout = Layout(tmp_path / "runs" / "mine")
    record = {"pid": 2**22 + 1, "began": 1.0, "arguments": ["run"]}
    write_json(layout.process, record)
    write_bytes(layout.complained, b"oodream: /data has only one class (cats).\n")
    card = page.get_by_role("article", name="mine")
    with studio(cwd=tmp_path) as served:
        page.goto(f"{served.url}/run")
        expect(card).to_contain_text("/data has only one class (cats).")
        expect(card.get_by_role("button")).to_have_text(["Try again"])


def test_a_run_is_started_stopped_and_found_again_by_another_studio(shapes, tmp_path, page):
    """The studio is killed in the middle; the run is not."""
    expect = pytest.importorskip("playwright.sync_api").expect
    card = page.get_by_role("article", name="mine")
    state = card.locator("h2 span")
    with studio(cwd=tmp_path) as first:
        page.goto(f"{first.url}/run")
        page.get_by_label("Images").fill(str(tmp_path / "nothing"))
        page.get_by_label("Name").fill("mine")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("form").get_by_role("alert")).to_contain_text("nothing is not a folder")
        page.get_by_label("Images").fill(str(shapes))
        page.keyboard.press("Enter")
        expect(state).to_have_text("at work", timeout=WAIT)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(card.locator("li.running")).to_be_visible(timeout=WAIT)
        first.process.send_signal(signal.SIGKILL)
    folder = tmp_path / "runs" / "mine"
    process = process_of(folder)
    try:
        assert process is not None
        with studio(cwd=tmp_path, port=first.port) as second:
            page.goto(f"{second.url}/run")
            expect(state).to_have_text("at work", timeout=WAIT)
            card.get_by_role("button", name="Stop").click()
            expect(state).to_have_text("stopped", timeout=WAIT)
            assert process_of(folder) is None
            card.get_by_role("button", name="Resume").click()
            expect(state).to_have_text("at work", timeout=WAIT)
            assert process_of(folder).pid != process.pid
    finally:
        if (left := process_of(folder)) is not None:
            left.kill()
    assert begun_below(tmp_path / "runs") == [folder]
