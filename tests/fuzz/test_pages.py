"""Names that are markup stand as text on every page that shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from oodream.deploy.card import card
from oodream.studio.app import create_app
from oodream.studio.studio import Studio
from tests.helpers.studio import imagined_run

from .small import classifier, guard

MARKUP = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
NAMES = (MARKUP, "{{7*7}}{% raw %}", "${7*7}`")


def test_a_model_card_shows_the_classes_names_as_text():
    named = replace(guard(), classifier=replace(classifier(), names=NAMES))
    text = str(card(named, "folder"))
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert NAMES[1] in text


@pytest.mark.parametrize("path", ["/outliers", "/imagine", "/try", "/compare", "/run", "/"])
def test_the_studios_pages_show_a_runs_name_as_text(tmp_path, path):
    name = "<script>alert(1)<"
    run = imagined_run(tmp_path / f"{name}img src=x onerror=alert(2)>", 2, classes=("a", "b"))
    app = create_app(Studio([run], root=tmp_path, device="cpu"))
    client = TestClient(app, base_url="http://127.0.0.1:8700", raise_server_exceptions=False)
    text = client.get(path).text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    refused = client.get("/outliers", params={"run": MARKUP})
    assert refused.status_code == 404
    assert "<script>alert" not in refused.text


@pytest.mark.parametrize("path", ["/api/outliers/run/rows", "/api/imagine/run"])
def test_what_scripts_are_told_is_json(tmp_path, path):
    run = imagined_run(tmp_path / "run", 2, classes=(MARKUP, "b"))
    app = create_app(Studio([run], root=tmp_path, device="cpu"))
    answer = TestClient(app, base_url="http://127.0.0.1:8700").get(path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert MARKUP in answer.json()["classes"]
