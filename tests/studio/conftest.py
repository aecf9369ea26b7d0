"""A real browser, where there is one."""

from __future__ import annotations

import shutil

import pytest


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
