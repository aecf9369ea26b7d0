"""Imagine over HTTP: pictures as tasks, what is added to the outliers and removed again."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from oodream.core.files import read_json_lines
from oodream.run.artifacts import Run
from oodream.run.job import Job
from oodream.run.sources import sources
from oodream.studio.imagine import suggestions
from tests.helpers.studio import WAIT, client, studio

CIRCLE = {"name": "circle", "start": {"kind": "class", "value": "circle"}, "steps": 2, "guidance": 3.0}


@pytest.fixture(scope="module")
def asking(finished, tmp_path_factory):
    """A client of a studio with a copy of the run."""
    return client(Path(shutil.copytree(finished, tmp_path_factory.mktemp("studio") / "copy")))


def wait(asking, task: dict) -> dict:
    asking.app.state.service.worker.task(task["id"]).over.wait(120)
    return asking.get(f"/api/tasks/{task['id']}").json()


def drawn(asking, *recipes: dict) -> list[dict]:
    """The answers about pictures that have been drawn."""
    answer = asking.post("/api/imagine/copy/draw", json={"recipes": list(recipes)})
    assert answer.status_code == 200, answer.text
    for task in answer.json():
        assert wait(asking, task)["state"] == "done"
    return [asking.get(f"/api/imagine/copy/pictures/{task['key']}").json() for task in answer.json()]


def png(asking, picture: dict) -> bytes:
    return asking.get(f"/api/imagine/copy/pictures/{picture['key']}/png").content


def test_the_page_is_told_what_there_is_to_draw(asking):
    told = asking.get("/api/imagine/copy").json()
    assert told["classes"] == ["circle", "square", "star"]
    assert (told["rows"], told["steps"], told["guidance"]) == (24, 2, 3.0)
    assert (told["added"], told["adds_nothing"]) == ([], "")


def test_a_row_of_the_run_says_its_class(asking):
    run = asking.app.state.service.run("copy")
    assert asking.get("/api/imagine/copy/rows/4").json() == {"row": 4, "class": run.provenance[4]["class"]}
    assert "There is no row 24" in asking.get("/api/imagine/copy/rows/24").json()["detail"]


def test_the_decoder_is_loaded_once_and_then_lists_words(asking):
    assert wait(asking, asking.post("/api/imagine/copy/decoder").json())["state"] == "done"
    assert asking.get("/api/imagine/copy").json()["loaded"]
    assert asking.get("/api/imagine/copy/words?starts=re").json()[0] == "red"
    assert "star" not in asking.get("/api/imagine/copy/words").json()


def test_pictures_come_with_what_a_person_may_ask(asking):
    first, second = drawn(asking, CIRCLE | {"seed": 1}, CIRCLE | {"seed": 2})
    assert Image.open(io.BytesIO(png(asking, first))).size == (32, 32)
    assert png(asking, first) != png(asking, second)
    assert first["class"] == "circle"
    assert first["recipe"]["seed"] == 1
    assert set(first["opinions"]) == {"baseline", "regularized"}
    assert first["opinions"]["baseline"]["likeliest"] in ("circle", "square", "star")


def test_the_same_settings_are_the_same_picture_in_another_studio(asking):
    (here,) = drawn(asking, CIRCLE | {"seed": 5})
    other = client(asking.app.state.service.folder("copy"))
    (there,) = drawn(other, CIRCLE | {"seed": 5})
    assert here["key"] == there["key"]
    assert png(asking, here) == png(other, there)


def test_a_drawing_is_stopped_and_what_waits_behind_it_is_not(asking):
    long, short = CIRCLE | {"seed": 7, "steps": 200}, CIRCLE | {"seed": 8}
    first, second = asking.post("/api/imagine/copy/draw", json={"recipes": [long, short]}).json()
    asking.post("/api/imagine/copy/stop", json={"numbers": [first["id"]]})
    assert wait(asking, first)["state"] == "stopped"
    assert wait(asking, second)["state"] == "done"
    assert asking.get(f"/api/imagine/copy/pictures/{first['key']}").status_code == 404
    states = asking.get(f"/api/imagine/copy/tasks?number={first['id']}&number={second['id']}").json()
    assert [task["state"] for task in states] == ["stopped", "done"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"moves": [{"share": 2}]}, "share must be between 0 and 1"),
        ({"steps": 0}, "steps must be between"),
        ({"start": {"kind": "file", "value": "/etc/passwd"}}, "kind"),
        ({"start": {"kind": "class", "value": "../x"}}, "There is no class"),
        ({"moves": [{"seed": 1, "share": 0.1}] * 17}, "moves are at most 16"),
    ],
)
def test_what_cannot_be_drawn_is_said(asking, change, sentence):
    answer = asking.post("/api/imagine/copy/draw", json={"recipes": [CIRCLE | change]})
    text = answer.json()["detail"] if answer.status_code != 200 else wait(asking, answer.json()[0])["error"]
    assert sentence in text


def test_too_many_at_once_are_refused(asking):
    assert asking.post("/api/imagine/copy/draw", json={"recipes": [CIRCLE] * 33}).status_code == 422


def test_what_is_liked_is_added_and_removed_again(asking):
    folder = asking.app.state.service.folder("copy")
    moves = [{"toward": {"kind": "word", "value": "red"}, "share": 0.5}]
    recipe = CIRCLE | {"moves": moves, "seed": 3}
    (picture,) = drawn(asking, recipe)
    answer = asking.post("/api/imagine/copy/add", json={"recipes": [recipe]}).json()
    assert answer["task"] is None
    (line,) = answer["added"]
    assert (line["number"], line["class"], line["way"]) == (1, "circle", picture["way"])
    assert not answer["trained"]
    assert "vector" not in line
    assert asking.get("/api/imagine/copy/added/1/png").content == png(asking, picture)
    assert read_json_lines(folder / "added" / "added.jsonl")[0]["recipe"]["moves"][0]["share"] == 0.5
    assert asking.post("/api/imagine/copy/remove", json={"numbers": [1]}).json()["added"] == []
    assert asking.get("/api/imagine/copy/added/1/png").status_code == 404
    again = asking.post("/api/imagine/copy/remove", json={"numbers": [1]})
    assert again.status_code == 422
    assert "No picture has the number 1" in again.json()["detail"]


def test_what_is_not_remembered_is_drawn_again_to_be_added(asking):
    other = client(asking.app.state.service.folder("copy"))
    answer = other.post("/api/imagine/copy/add", json={"recipes": [CIRCLE | {"seed": 9}]}).json()
    assert wait(other, answer["task"])["state"] == "done"
    assert [line["recipe"]["seed"] for line in other.get("/api/imagine/copy").json()["added"]] == [9]


def test_a_link_out_of_the_run_is_not_followed(asking, tmp_path):
    added = asking.app.state.service.folder("copy") / "added"
    (number,) = (line["number"] for line in asking.get("/api/imagine/copy").json()["added"])
    file = added / f"{number:06}.png"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file.unlink()
    file.symlink_to(secret)
    answer = asking.get(f"/api/imagine/copy/added/{number}/png")
    assert answer.status_code == 422
    assert "secret" not in answer.text


def test_words_that_begin_so_come_before_words_that_hold_it():
    assert suggestions(["sunset", "moon", "Sun", "unsung"], "sun") == ["sunset", "Sun", "unsung"]


def test_a_person_draws_likes_and_adds_by_keyboard(finished, tmp_path, page):
    """What is added is what training takes, survives a reload, and goes again."""
    expect = pytest.importorskip("playwright.sync_api").expect
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    with studio(folder) as running:
        page.goto(f"{running.url}/imagine")
        expect(page.locator("#decoder")).to_have_text("The decoder is loaded.", timeout=WAIT)
        page.locator("#class").select_option("square")
        page.get_by_label("a word").check()
        page.get_by_label("Which word").fill("red")
        page.get_by_label("Pictures").fill("3")
        page.keyboard.press("Enter")
        drawn = page.locator("#groups .picture")
        expect(drawn.locator("img")).to_have_count(3, timeout=WAIT)
        drawn.nth(1).focus()
        page.keyboard.press("a")
        expect(page.locator("#added img")).to_have_count(1, timeout=WAIT)
        added = Run.open(folder).added
        assert [(line["class"], line["recipe"]["seed"]) for line in added.lines] == [("square", 1)]
        source = sources(Job(Run.open(folder).config, folder))[-1]
        assert len(source.data) == int(Run.open(folder).keep_mask.sum()) + 1
        page.keyboard.press("n")
        expect(drawn.locator("img")).to_have_count(7, timeout=WAIT)
        page.get_by_role("button", name="Draw the way there").click()
        expect(drawn.locator("img")).to_have_count(14, timeout=WAIT)
        page.reload()
        expect(drawn.locator("img")).to_have_count(14, timeout=WAIT)
        expect(page.get_by_role("button", name="Added")).to_have_count(1)
        page.get_by_role("button", name="Remove picture 1").click()
        expect(page.locator("#added img")).to_have_count(0, timeout=WAIT)
        assert len(Run.open(folder).added) == 0
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#added img")).to_have_count(1, timeout=WAIT)
        assert Run.open(folder).added.fingerprint == added.fingerprint
