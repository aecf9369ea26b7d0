"""The gallery in a real browser: keys, two tabs, a reload, a studio that is killed in the middle."""

from __future__ import annotations

import re
import shutil
import socket
import time
from pathlib import Path

import pytest

from oodream.cli.main import main
from oodream.run.artifacts import Run
from oodream.run.curation import read_decisions
from tests.helpers.runs import command
from tests.helpers.studio import imagined_run, studio


def opened(page, url: str):
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    return page


def cell(page, row: int):
    return page.get_by_role("option", name=re.compile(f"^Row {row},"))


def counted(page, text: str):
    page.get_by_text(text).first.wait_for()


def test_three_outliers_that_are_rejected_by_key_are_gone_from_training(
    finished, shapes, tiny_pipeline, tmp_path, page
):
    """The studio is killed in the middle, and started again on the same port."""
    run = Path(shutil.copytree(finished, tmp_path / "calm"))
    before = Run.open(run)
    outliers = before.stamp("classifier/regularized-s0")["summary"]["outliers"]
    rows = before.keep_mask.nonzero()[:3, 0].tolist()
    with studio(run) as running:
        opened(page, f"{running.url}/outliers?run=calm&show=kept")
        page.keyboard.press("r")
        counted(page, "A person rejected 1 in all.")
        cell(page, rows[0]).and_(page.locator("[aria-label*='a person rejected it']")).wait_for()
        wait_for_lines(run, 1)
        port = running.port
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    page.get_by_text("The studio does not answer.").wait_for()
    with studio(run, port=port) as running:
        counted(page, "A person rejected 1 in all.")  # what did not arrive is not shown
        page.reload()
        page.wait_for_selector("body[data-ready]")
        counted(page, "A person rejected 1 in all.")
        page.keyboard.press("Home")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("r")
        counted(page, "A person rejected 3 in all.")
        page.get_by_text("The run’s command again").wait_for()
        wait_for_lines(run, 3)
        assert main(command(shapes, tiny_pipeline, run)) == 0
        page.get_by_text("The run’s command again").wait_for(state="hidden")
    after = Run.open(run)
    assert after.selection.curation.rejected == rows
    assert after.stamp("classifier/regularized-s0")["summary"]["outliers"] == outliers - 3
    assert "A person looked at them, rejected 3." in after.layout.report.read_text()


def wait_for_lines(run: Path, count: int) -> None:
    ends = time.monotonic() + 30
    while len(read_decisions(run / "curation.jsonl")) < count:
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return imagined_run(
        tmp_path_factory.mktemp("runs") / "many", 5000, ("coat", "<img src=x onerror=alert(1)>")
    )


@pytest.fixture(scope="module")
def running(many):
    with studio(many) as process:
        yield process


def test_thousands_scroll_with_few_elements(running, page):
    opened(page, f"{running.url}/outliers")
    counted(page, "5,000 of 5,000 outliers shown, 4,000 of these kept.")
    for key, row in (("End", 4999), ("Home", 0), ("PageDown", None)):
        page.keyboard.press(key)
        if row is not None:
            cell(page, row).wait_for()
        assert page.locator(".cell").count() < 200
    assert page.locator("*").count() < 2500


def test_it_filters_and_sorts_and_stays_so_after_a_reload(running, page):
    opened(page, f"{running.url}/outliers")
    page.locator("#class").select_option(label="<img src=x onerror=alert(1)>")
    page.locator("#show").select_option(label="dropped: looks like its class")
    page.locator("#word").fill("word 3")
    page.locator("#from").fill("0.5")
    rows = [m for m in range(2500, 5000) if m % 2 and m % 5 == 4 and m % 7 == 3]
    counted(page, f"{len(rows)} of 5,000 outliers shown, 0 of these kept.")
    page.locator("#order").select_option(label="farthest first")
    page.get_by_role("option", name=f"Row {rows[-1]}, ").and_(page.locator("[aria-posinset='1']")).wait_for()
    page.get_by_label("Imagined pictures").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#facts").get_by_text(str(rows[-2]), exact=True).first.wait_for()
    page.reload()
    page.wait_for_selector("body[data-ready]")
    counted(page, f"{len(rows)} of 5,000 outliers shown")
    assert page.locator(".cell.cursor").get_attribute("aria-label").startswith(f"Row {rows[-2]},")


def test_two_tabs_are_in_step_and_undo_is_common(running, page):
    other = page.context.new_page()
    for tab in (page, other):
        opened(tab, f"{running.url}/outliers")
    page.bring_to_front()
    cell(page, 1).click()
    cell(page, 2).click(modifiers=["Shift"])
    cell(page, 5).click(modifiers=["Control"])
    page.get_by_role("button", name="Reject").click()
    counted(other, "A person rejected 3 in all.")
    other.bring_to_front()
    other.get_by_label("Imagined pictures").focus()
    other.keyboard.press("u")
    for tab in (page, other):
        counted(tab, "A person rejected 0 in all.")


def test_all_is_said_to_screen_readers_and_done_by_keyboard(running, page):
    opened(page, f"{running.url}/outliers")
    grid = page.get_by_role("listbox", name="Imagined pictures")
    page.keyboard.press("ArrowRight")
    active = grid.get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-label") == (
        "Row 1, around <img src=x onerror=alert(1)>, kept"
    )
    page.keyboard.press("Space")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, a")].filter((x) =>
            !(x.textContent.trim() || x.labels?.length || x.getAttribute("aria-label"))).length"""
    )
    assert unnamed == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "keep"


def test_a_score_above_the_threshold_is_seen_above_it(running, page):
    page.goto(f"{running.url}/outliers")

    def compared(score: float, threshold: float) -> list[str]:
        return page.evaluate(f"import('/static/common.js').then((m) => m.compared({score}, {threshold}))")

    assert compared(-5.0, 0.504) == ["−5.00", "0.50"]
    assert compared(1.0004, 1.0) == ["1.0004", "1.0000"]
    assert compared(1.001, 1.0049) == ["1.00", "1.00"]
    assert compared(2e-30, 1e-30) == ["2e−30", "1e−30"]


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_page(running, page, width):
    page.set_viewport_size({"width": width, "height": 844})
    opened(page, f"{running.url}/outliers")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_port_that_is_taken_is_said(many, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["studio", str(many), "--port", str(taken.getsockname()[1])]) == 2
    assert "Choose another" in capsys.readouterr().err
