"""What nobody can do through the studio: read or write elsewhere, from elsewhere, or without the token."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from oodream.cli.main import main
from oodream.core.files import read_json, write_json
from oodream.run.curation import read_decisions
from oodream.studio.safety import COOKIE, HEADERS, MAX_BODY
from tests.helpers.page import Page
from tests.helpers.studio import client, imagined_run

TOKEN = "a-word-of-more-than-16-letters"
HOSTILE = ('<img src=x onerror="alert(1)">', "</script><script>alert(2)</script>")
AT = "/api/outliers/pictures"


@pytest.fixture
def run(tmp_path):
    """A run of ten pictures, in a folder with a secret beside it."""
    Image.new("RGB", (16, 16), "red").save(tmp_path / "secret.png")
    return imagined_run(tmp_path / "pictures", 10)


def reject(asking, row: int = 0, **headers: str):
    of = asking.get(f"{AT}/rows").json()["of"]
    body = {"rows": [row], "action": "reject", "of": of}
    return asking.post(f"{AT}/curation", json=body, headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "", "[::2]:8700"]
)
def test_a_name_that_is_not_this_machines_is_refused(run, host):
    """A page could be served under a name that leads here."""
    answer = client(run).get(f"{AT}/rows", headers={"Host": host})
    assert answer.status_code == 400
    assert "coat" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8700", "localhost:8700", "LOCALHOST", "[::1]:8700"])
def test_names_of_the_loopback_are_this_machines(run, host):
    assert client(run).get(f"{AT}/rows", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_other_sites_pages_change_nothing(run, headers):
    asking = client(run)
    assert reject(asking, **headers).status_code == 403
    assert read_decisions(run / "curation.jsonl") == []
    assert (
        reject(asking, Origin="http://127.0.0.1:8700", **{"Sec-Fetch-Site": "same-origin"}).status_code == 200
    )


def test_other_sites_pages_read_nothing_but_may_link_here(run):
    asking = client(run)
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame = link | {"Sec-Fetch-Dest": "iframe"}
    assert asking.get(f"{AT}/pictures/0", headers=image).status_code == 403
    assert asking.get("/outliers", headers=frame).status_code == 403
    assert asking.get("/outliers", headers=link).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../outliers.html.j2",
        "/static/%2e%2e/outliers.html.j2",
        "/static/..%2foutliers.html.j2",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/api/outliers/../../secret/rows",
        "/api/outliers/..%2f..%2fetc/rows",
        "/api/outliers/%2e%2e/rows",
        "/api/outliers/nothing/pictures/0",
        f"{AT}/pictures/..%2f..%2f..%2fsecret.png",
        f"{AT}/pictures/10",
        f"{AT}/pictures/-1",
        f"{AT}/anchors/99999999999999999999",
    ],
)
def test_no_path_leads_out_of_the_runs(run, path):
    answer = client(run).get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith(("application/json", "text/html", "text/plain"))


def test_links_in_a_run_are_not_followed(run, tmp_path):
    """An archive of a run may hold links to files of whoever opens it."""
    asking, files = client(run), sorted((run / "images" / "imagined").rglob("*.png"))
    assert asking.get(f"{AT}/pictures/0").status_code == 200
    files[0].unlink()
    files[0].symlink_to(tmp_path / "secret.png")
    answer = asking.get(f"{AT}/pictures/0")
    assert answer.status_code == 422
    assert "leads out of the run's folder" in answer.json()["detail"]
    folder = files[0].parent
    shutil.move(folder, tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert asking.get(f"{AT}/pictures/2").status_code == 422
    (run / "curation.jsonl").symlink_to(tmp_path / "written.jsonl")
    assert reject(asking).status_code == 422
    assert not (tmp_path / "written.jsonl").exists()


def test_names_with_html_are_text(tmp_path):
    run = imagined_run(tmp_path / "<b onclick=alert(3)>", 4, HOSTILE)
    asking = client(run)
    for path in ("/", "/outliers"):
        page = Page(asking.get(path, params={"run": "<b onclick=alert(3)>"}).text)
        assert page.mismatched == []
        assert not any("onclick" in tag or "onerror" in tag for _, tag in page.tags)
        assert page.all("script") == [s for s in page.all("script") if str(s["src"]).startswith("/static/")]
    page = Page(asking.get("/outliers", params={"run": '"><script>alert(4)</script>'}).text)
    assert len(page.all("script")) == 1
    assert asking.get("/api/outliers/%3Cb%20onclick=alert(3)%3E/rows").json()["classes"] == list(HOSTILE)


def test_every_answer_has_the_headers(run):
    asking = client(run)
    answers = [
        asking.get("/"),
        asking.get("/static/common.js"),
        asking.get("/static/look.css"),
        asking.get("/nothing"),
        asking.get(f"{AT}/rows"),
        asking.get(f"{AT}/pictures/0"),
        asking.get(f"{AT}/rows/77"),
        asking.get("/", headers={"Host": "evil.example"}),
        asking.post("/", content=b"x"),
    ]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.url
        assert answer.headers["Cache-Control"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert asking.get("/outliers").headers["Cache-Control"] == "no-store"


def test_a_fault_of_ours_is_said_with_the_headers(run, monkeypatch, capsys):
    asking = client(run)
    monkeypatch.setattr(type(asking.app.state.service), "run", lambda *_: [][0])
    answer = asking.get(f"{AT}/rows")
    assert answer.status_code == 500
    assert answer.json() == {"detail": "This failed; the terminal of the studio says how."}
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert "IndexError" in capsys.readouterr().err


def test_bodies_have_a_limit(run):
    asking, sent = client(run), 0

    def endless():
        nonlocal sent
        for _ in range(2 * MAX_BODY // 1_000_000):
            sent += 1
            yield b" " * 1_000_000

    said = asking.post(f"{AT}/curation", content=b" ", headers={"Content-Length": str(MAX_BODY + 1)})
    assert said.status_code == 413
    answer = asking.post(f"{AT}/curation", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "At most 32 MB" in answer.json()["detail"]


def test_a_token_is_asked_for_and_kept_in_a_cookie(run):
    asking = client(run, token=TOKEN)
    assert asking.get(f"{AT}/rows").status_code == 401
    blind = {"rows": [0], "action": "reject", "of": "x"}
    assert asking.post(f"{AT}/curation", json=blind).status_code == 401
    sent = asking.get("/outliers?run=pictures")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/enter")
    page = asking.get("/enter")
    assert page.status_code == 200
    assert "pictures" not in page.text
    assert asking.get("/static/studio.css").status_code == 200
    assert asking.post("/enter", data={"word": "a-guess-of-more-than-16-letters"}).status_code == 401
    assert asking.get(f"{AT}/rows").status_code == 401
    entered = asking.post("/enter", data={"word": TOKEN})
    assert entered.status_code == 303
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert asking.get(f"{AT}/rows").status_code == 200
    assert reject(asking).status_code == 200
    assert reject(asking, Origin="https://evil.example").status_code == 403


@pytest.mark.parametrize("value", ["", "x", "é", TOKEN[:-1], TOKEN])
def test_programs_send_the_token_as_a_bearer(run, value):
    asking = client(run, token=TOKEN)
    headers = {"Authorization": f"Bearer {value}".encode()}
    assert asking.get(f"{AT}/rows", headers=headers).status_code == (200 if value == TOKEN else 401)
    cookie = {"Cookie": f"{COOKIE}={value}".encode()}
    assert asking.get(f"{AT}/rows", headers=cookie).status_code == 401, "the cookie is not the token"


def test_other_machines_take_a_token(run, capsys):
    assert main(["studio", str(run), "--host", "0.0.0.0"]) == 2
    assert "--token-file" in capsys.readouterr().err


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main(["studio", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_run_with_code_of_its_own_takes_leave(run):
    manifest = read_json(run / "run.json")
    manifest["config"]["decode"]["decoder"] = "os:system"
    write_json(run / "run.json", manifest)
    answer = client(Path(run)).get(f"{AT}/rows")
    assert answer.status_code == 422
    assert "names the plug-in" in answer.json()["detail"]
