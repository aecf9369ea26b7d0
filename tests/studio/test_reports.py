"""Reports and comparisons in the studio: which are sent, and with what the browser is told of them."""

from __future__ import annotations

import pytest

from oodream.core.files import write_bytes
from oodream.run.layout import Layout
from oodream.studio.reports import POLICY
from tests.helpers.studio import client, imagined_run, studio

PAGE = b"<!doctype html><h1>Accepts 20 %</h1><script>document.title = 'run'</script>"
ARMS = b'<a href="known_%C3%BC/report/index.html">known</a>'


@pytest.fixture
def arms(tmp_path):
    """Two arms of a comparison, with their pages."""
    folders = [imagined_run(tmp_path / "both" / name, 1) for name in ("imagined", "known_ü")]
    for folder in folders:
        write_bytes(Layout(folder).report, PAGE)
    write_bytes(tmp_path / "both" / "comparison.html", ARMS)
    return folders


def test_a_report_and_its_comparison_are_sent_and_nothing_of_them_is_run(arms):
    asking = client(*arms)
    for path, content in (("reports/imagined", PAGE), ("comparisons/imagined/", ARMS)):
        answer = asking.get(f"/{path}")
        assert answer.content == content
        assert answer.headers["Content-Type"].startswith("text/html")
        assert answer.headers["Content-Security-Policy"] == POLICY
    assert POLICY.startswith("default-src 'none'")
    assert "script" not in POLICY
    (one, other) = asking.get("/api/run").json()
    assert [one["report"], one["comparison"], other["report"]] == [True] * 3
    assert 'href="/comparisons/imagined/"' in asking.get("/compare?run=imagined").text


def test_a_comparison_leads_to_the_reports_of_arms_that_are_here(arms):
    asking = client(*arms)
    answer = asking.get("/comparisons/imagined/known_%C3%BC/report/index.html")
    assert asking.get(answer.headers["Location"]).content == PAGE
    for arm in ("..", "%2e%2e", "other"):
        assert client(arms[0]).get(f"/comparisons/imagined/{arm}/report/index.html").status_code == 404


def test_what_is_not_there_or_lies_elsewhere_is_not_sent(arms, tmp_path):
    secret = write_secret(tmp_path / "secret.html")
    alone = imagined_run(tmp_path / "alone" / "run", 1)
    asking = client(*arms, alone)
    for file in (Layout(arms[0]).report, arms[0].parent / "comparison.html"):
        file.unlink()
        file.symlink_to(secret)
    for path in ("reports/imagined", "comparisons/imagined/", "reports/run", "comparisons/run/"):
        answer = asking.get(f"/{path}")
        assert answer.status_code == 422
        assert "secret" not in answer.text
    assert asking.get("/reports/nothing").status_code == 404
    alone_now = next(one for one in asking.get("/api/run").json() if one["name"] == "run")
    assert (alone_now["report"], alone_now["comparison"]) == (False, False)


def write_secret(file):
    write_bytes(file, b"a secret")
    return file


def test_a_card_leads_to_the_report(arms, page):
    expect = pytest.importorskip("playwright.sync_api").expect
    page.set_default_timeout(20_000)
    for arm in arms:
        write_bytes(
            Layout(arm).report, b"<!doctype html><style>h1 { color: red }</style><h1>Accepts 20 %</h1>"
        )
    with studio(*arms) as running:
        page.goto(f"{running.url}/run")
        card = page.get_by_role("article", name="known_ü")
        card.get_by_role("link", name="Comparison").click()
        page.get_by_role("link", name="known").click()
        expect(page.get_by_role("heading")).to_have_text("Accepts 20 %")
