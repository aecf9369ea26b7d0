"""A real browser, where there is one, and a run with a guard."""

from __future__ import annotations

import shutil

import pytest

from oodream.cli.main import main
from tests.helpers.runs import command
from tests.helpers.studio import studio


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium; tests that need it are skipped where none is found.

    While it is there, the thread has a running event loop, which other modules' tests must not find.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if (program := shutil.which("chromium") or shutil.which("google-chrome")) is None:
        pytest.skip("no Chromium was found")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page of a browser of its own; what its scripts throw fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(120_000)  # a machine may be busy
    page, faults = context.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console", lambda message: "Content Security Policy" in message.text and faults.append(message.text)
    )
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="session")
def guarded(finished, shapes, tiny_pipeline, tmp_path_factory):
    """The small whole run again, trained with fewer outliers, and with a guard that its few test images can
    promise; for tests that only read it.
    """
    run = tmp_path_factory.mktemp("guarded") / "fewer"
    shutil.copytree(finished, run)
    options = "--regularize.ratio 0.25 --guard.alpha 0.2 --guard.confidence 0 --redo changed".split()
    assert main(command(shapes, tiny_pipeline, run, *options)) == 0
    return run


@pytest.fixture(scope="session")
def served(guarded, finished):
    """`oodream studio` of both runs, in a process of its own, for tests that only look."""
    with studio(guarded, finished) as running:
        yield running
