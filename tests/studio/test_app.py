"""The studio's frame: pages, errors, tasks, and `oodream studio` itself."""

from __future__ import annotations

import time

import pytest

from oodream.studio.pages import PARTS
from tests.helpers.studio import client, studio


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


def test_the_command_serves_and_is_quick_to_start(finished):
    began = time.monotonic()
    with studio(finished) as running:
        assert time.monotonic() - began < 30  # 10 on a machine with nothing else to do
        assert running.process.poll() is None


def test_every_page_opens_in_a_browser(finished, page):
    """With nothing from elsewhere, and no script or style that the policy refuses."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with studio(finished) as running:
        for path in ("", *PARTS):
            page.goto(f"{running.url}/{path}")
            assert page.locator("h1").is_visible()
        assert {url.split("/")[2] for url in asked} == {f"127.0.0.1:{running.port}"}
