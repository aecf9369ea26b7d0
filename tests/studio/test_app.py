"""The studio's frame: pages, errors, tasks, and `oodream studio` itself."""

from __future__ import annotations

import signal

import psutil
import pytest

from oodream.deploy.stored import CONFIG_FILE, TENSORS_FILE
from oodream.studio.pages import PARTS
from oodream.studio.studio import Studio, runs_below
from tests.helpers.page import Page
from tests.helpers.studio import client, imagined_run, studio


@pytest.mark.parametrize("path", ["", *PARTS])
def test_every_part_has_a_page(finished, path):
    answer = client(finished).get(f"/{path}?run=calm")
    assert answer.status_code == 200
    assert "calm" in answer.text


def test_errors_are_pages_for_people_and_sentences_for_scripts(finished):
    asking = client(finished)
    page = asking.get("/nothing")
    assert page.status_code == 404
    assert "There is no such page." in page.text
    answer = asking.get("/api/tasks/7")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "There is no such task any more."}


@pytest.mark.parametrize("path", ["", *PARTS])
def test_a_run_that_there_is_not_is_a_page_with_those_that_there_are(finished, path):
    answer = client(finished).get(f"/{path}?run=<nope>")
    page = Page(answer.text)
    assert answer.status_code == 404
    assert "There is no run '<nope>' in this studio." in page.text("p")
    assert page.text("option") == "choose one calm"
    assert [one.get("value") for one in page.all("option") if "selected" in one] == [""]


def test_who_has_not_entered_is_told_no_runs(finished):
    answer = client(finished, token="secret").get("/enter?run=nope")
    assert answer.status_code == 200
    assert "calm" not in answer.text


def test_the_command_serves_and_is_quick_to_start(finished):
    """In processor time, which does not depend on what else the machine has to do."""
    with studio(finished) as running:
        times = psutil.Process(running.process.pid).cpu_times()
        assert times.user + times.system < 10
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        assert "stopped" in running.process.stdout.read()


def test_without_a_name_all_runs_are_there(tmp_path):
    for place in ("b", "a", "compare-x/arm-s0", "no/run/here/too-deep"):
        imagined_run(tmp_path / "runs" / place, 1)
    (tmp_path / "runs" / "empty").mkdir()
    folders = runs_below(tmp_path / "runs")
    assert [folder.relative_to(tmp_path / "runs").as_posix() for folder in folders] == [
        "a", "b", "compare-x/arm-s0",
    ]  # fmt: skip
    assert Studio(folders, root=tmp_path / "runs").names == ["a", "b", "compare-x~arm-s0"]
    assert runs_below(tmp_path / "nowhere") == []


@pytest.mark.parametrize("path", ["", *PARTS])
def test_a_guard_alone_is_listed_where_pictures_are_tried_on_it(tmp_path, path):
    run = imagined_run(tmp_path / "calm", 1)
    (tmp_path / "mine").mkdir()
    for name in (CONFIG_FILE, TENSORS_FILE):
        (tmp_path / "mine" / name).touch()
    asking = client(tmp_path / "mine", run)
    answer = asking.get(f"/{path}?run=mine")
    assert answer.status_code == 200
    assert ("mine" in answer.text) == (path in ("", "try"))
    assert [one["name"] for one in asking.get("/api/run").json()] == ["calm"]


@pytest.mark.parametrize("path", ["", "outliers"])
def test_without_runs_there_are_pages(path):
    answer = client().get(f"/{path}")
    assert answer.status_code == 200
    assert "There is no run yet" in answer.text


def test_every_page_opens_in_a_browser(finished, page):
    """With nothing from elsewhere, and no script or style that the policy refuses."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with studio(finished) as running:
        for path in ("", *PARTS):
            page.goto(f"{running.url}/{path}")
            assert page.locator("h1").is_visible()
        assert {url.split("/")[2] for url in asked} == {f"127.0.0.1:{running.port}"}
