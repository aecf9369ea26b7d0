"""Try: answers, nearest pictures, the slider and saved guards as the library has them; hostile uploads."""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from oodream.core.files import write_json
from oodream.core.tensors import save_tensors
from oodream.deploy.guard import Guard
from oodream.run.artifacts import Run
from oodream.runtime.calibration import p_values
from tests.helpers.serving import FORM, encoded, form
from tests.helpers.studio import client

HTML = '<img src=x onerror="document.title=1">.png'


@pytest.fixture(scope="module")
def asking(guarded) -> TestClient:
    with client(guarded) as one:
        yield one


@pytest.fixture(scope="module")
def run(guarded) -> Run:
    return Run.open(guarded)


def shape(color: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    picture = Image.new("RGB", (48, 40), (240, 240, 240))
    picture.paste(color, (10, 8, 36, 30))
    return picture


def files_below(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_answers_are_the_guards(asking, run):
    pictures = [shape(), shape((20, 20, 200))]
    body = form(*((f"{i}.png", encoded(one)) for i, one in enumerate(pictures)))
    answer = asking.post("/api/try/fewer/pictures", content=body, headers=FORM).json()
    expected = run.guard().predict(pictures)
    assert answer["guarantee"] == str(run.guard().guarantee)
    for one, other in zip(answer["predictions"], expected, strict=True):
        for key in ("answer", "flagged", "score", "threshold", "likeliest", "p_value"):
            assert one[key] == getattr(other, key)
    score = [other.score for other in expected]
    assert [one["p_value"] for one in answer["predictions"]] == p_values(
        score, run.guard().held_out.score_N
    ).tolist()


def test_nothing_of_a_picture_is_written(asking, guarded):
    body = form(("one.png", encoded(shape())))
    asking.post("/api/try/fewer/nearest", content=body, headers=FORM)  # reads the known images once
    before = files_below(guarded)
    for what in ("pictures", "nearest"):
        assert asking.post(f"/api/try/fewer/{what}", content=body, headers=FORM).status_code == 200
    assert files_below(guarded) == before


def test_a_known_picture_is_nearest_to_itself(asking, shapes):
    file = sorted(shapes.rglob("*.png"))[7]
    body = form((file.name, file.read_bytes()))
    nearest = asking.post("/api/try/fewer/nearest", content=body, headers=FORM).json()["nearest"][0]
    cosines = [one["cosine"] for one in nearest]
    assert cosines == sorted(cosines, reverse=True)
    shown = [asking.get(f"/api/try/fewer/known/{one['row']}") for one in nearest]
    assert {one.headers["content-type"] for one in shown} == {"image/png"}
    pixels = [np.asarray(Image.open(io.BytesIO(one.content))) for one in shown]
    known = [np.array_equal(one, np.asarray(Image.open(file).convert("RGB"))) for one in pixels]
    if cosines[0] > 1 - 1e-6:  # it is one of those that the run was trained on
        assert known[0]
        assert nearest[0]["class"] == file.parent.name
    else:
        assert not any(known)


@pytest.mark.parametrize("row", ["60", "-1", "x", "..%2F..%2Frun.json"])
def test_there_are_no_other_known_pictures(asking, row):
    answer = asking.get(f"/api/try/fewer/known/{row}")
    assert answer.status_code in (404, 422)
    assert answer.json()["detail"]


def test_the_slider_says_what_the_library_says(asking, run):
    facts = asking.get("/api/try/fewer").json()
    guard, scores = run.guard(), run.scores("regularized", 0, "energy")
    assert facts["alpha"] == 0.2
    assert {0.1, 0.2, 0.5} <= set(facts["alphas"])
    for alpha in (facts["alphas"][0], 0.2, 0.5):
        moved, expected = asking.get(f"/api/try/fewer/at?alpha={alpha}").json(), guard.at(alpha)
        assert moved["guarantee"] == str(expected.guarantee)
        assert moved["threshold"] == expected.threshold
        shares = {one["name"]: one["share"] for one in moved["unknown"]}
        assert shares == {
            name: float((scores[name] <= expected.threshold).double().mean())
            for name in set(scores) - {"id", "reconstructed"}
        }
        assert all(one["low"] <= one["share"] <= one["high"] for one in moved["unknown"])
        held_out = guard.held_out.score_N
        assert moved["known"]["accepted"] == int((held_out <= expected.threshold).sum())
    for alpha in (0.001, 1e-300):
        refused = asking.get(f"/api/try/fewer/at?alpha={alpha}")
        assert refused.status_code == 422
        assert "can guarantee" in refused.json()["detail"], "in the library's words"
        assert len(refused.json()["detail"]) < 300


def test_histograms_are_of_each_unknown_set(asking, run):
    panels = asking.get("/api/try/fewer").json()["panels"]
    scores = run.scores("regularized", 0, "energy")
    assert {one["name"] for one in panels} == set(scores) - {"id", "reconstructed"}
    for one in panels:
        assert one["n"] == len(scores[one["name"]])
        assert one["low"] < one["quantiles"]["known"][2] < one["high"]
        assert one["quantiles"]["unknown"] == pytest.approx(
            np.quantile(scores[one["name"]].numpy(), [0.05, 0.25, 0.5, 0.75, 0.95])
        )


def test_a_guard_is_saved_inside_the_run(guarded, tmp_path):
    folder = shutil.copytree(guarded, tmp_path / "mine")
    with client(folder) as asking:
        saved = asking.post("/api/try/mine/save", json={"alpha": 0.5}).json()
        assert saved["new"]
        places = list((folder / "guards").iterdir())
        assert [str(place) for place in places] == [saved["folder"]]
        assert Guard.load(places[0]).guarantee == Run.open(folder).guard().at(0.5).guarantee
        assert not asking.post("/api/try/mine/save", json={"alpha": 0.5}).json()["new"]
        for wrong in ({"alpha": 0.001}, {"alpha": "../../x"}, {"alpha": 0.5, "folder": "/tmp"}, {}):
            before = files_below(folder)
            answer = asking.post("/api/try/mine/save", json=wrong)
            assert answer.status_code == (200 if "folder" in wrong else 422)
            assert files_below(folder) == before


def test_a_run_without_a_guard_says_why(finished):
    answer = client(finished).get("/api/try/calm")
    assert answer.status_code == 422
    assert "could have no guard" in answer.json()["detail"]


@pytest.fixture(scope="module")
def alone(guarded, tmp_path_factory):
    """A guard's own folder, with the scores that `oodream guard` keeps there, but for its report."""
    folder = tmp_path_factory.mktemp("alone") / "mine"
    guard, scores = Run.open(guarded).guard(), Run.open(guarded).scores()
    guard.save(folder)
    write_json(folder / "report.json", {"unknown": {"noise": "far"}})
    save_tensors(folder / "scores.safetensors", {"noise": scores["noise"]})
    return folder


def test_a_guard_in_a_folder_of_its_own_can_be_tried(alone, run):
    asking, guard, noise = client(alone), run.guard(), run.scores()["noise"]
    moved = asking.get("/api/try/mine/at?alpha=0.5").json()
    assert moved["guarantee"] == str(guard.at(0.5).guarantee)
    accepted = int((noise <= guard.at(0.5).threshold).sum())
    assert [(one["name"], one["accepted"], one["n"]) for one in moved["unknown"]] == [
        ("noise", accepted, len(noise))
    ]
    body = form(("one.png", encoded(shape())))
    answer = asking.post("/api/try/mine/pictures", content=body, headers=FORM).json()["predictions"][0]
    assert answer["score"] == guard.predict(shape()).score
    nearest = asking.post("/api/try/mine/nearest", content=body, headers=FORM)
    assert "keeps no known images" in nearest.json()["detail"]
    saved = asking.post("/api/try/mine/save", json={"alpha": 0.5}).json()["folder"]
    assert Guard.load(saved).guarantee == guard.at(0.5).guarantee
    assert asking.get("/compare?run=mine").status_code == 200


def test_a_guard_without_scores_has_its_known_ones_alone(alone, tmp_path):
    bare = shutil.copytree(alone, tmp_path / "bare")
    (bare / "scores.safetensors").unlink()
    facts = client(bare).get("/api/try/bare").json()
    assert [one["name"] for one in facts["panels"]] == [""]
    assert client(bare).get("/api/try/bare/at?alpha=0.5").json()["unknown"] == []


def claiming(side: int) -> bytes:
    """A small PNG file that says it is so many pixels wide and high."""
    content = bytearray(encoded(Image.new("L", (1, 1))))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("../../evil.png", encoded(shape()))
    return file.getvalue()


HOSTILE = {
    "text": (b"hello", "is no picture"),
    "cut": (encoded(shape())[:90], "cannot be read"),
    "large": (claiming(6000), "has 36.0 million pixels"),
    "bomb": (claiming(60_000), "has more than the 25 million pixels"),
    "archive": (archive(), "is no picture"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', "is no picture"),
    "empty": (b"", "is no picture"),
}


@pytest.mark.parametrize("what", ["pictures", "nearest"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pictures_are_refused_with_a_reason(asking, guarded, kind, what):
    content, reason = HOSTILE[kind]
    before = files_below(guarded)
    answer = asking.post(f"/api/try/fewer/{what}", content=form(("../../a.png", content)), headers=FORM)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"../../a.png {reason}")
    assert files_below(guarded) == before


def test_hostile_bodies_are_refused(asking):
    def status(content: bytes, **headers: str) -> int:
        return asking.post("/api/try/fewer/pictures", content=content, headers=headers).status_code

    many = form(*[("a.png", encoded(shape()))] * 65)
    assert status(many, **FORM) == 413
    assert status(b"x" * 32_000_001, **FORM) == 413
    assert status(b"no form", **FORM) == 400
    assert status(b"x=1", **{"Content-Type": "application/x-www-form-urlencoded"}) == 415
    assert status(json.dumps({"images": ["!"]}).encode(), **{"Content-Type": "application/json"}) == 422
    image = base64.b64encode(encoded(shape())).decode()
    assert status(json.dumps({"images": [image]}).encode(), **{"Content-Type": "application/json"}) == 200


def test_other_sites_can_ask_nothing(asking):
    body, site = form(("a.png", encoded(shape()))), {"Origin": "https://elsewhere.example"}
    assert asking.post("/api/try/fewer/pictures", content=body, headers=FORM | site).status_code == 403
    assert asking.post("/api/try/fewer/save", json={"alpha": 0.5}, headers=site).status_code == 403


def test_in_the_browser(served, page, run):
    """Pictures are chosen, dropped and pasted; the slider moves by key, and all that it changes follows."""
    pictures = {"red.png": encoded(shape()), HTML: encoded(shape((20, 20, 200))), "notes.txt": b"hello"}
    guard, scores = run.guard(), run.scores("regularized", 0, "energy")
    page.goto(f"{served.url}/try?run=fewer")
    page.locator("#trial").wait_for()
    page.set_input_files(
        "#files", [{"name": n, "mimeType": "image/png", "buffer": c} for n, c in pictures.items()]
    )
    page.locator(".failed").wait_for()
    assert "\nnotes.txt is no picture" in page.locator(".failed").inner_text()
    cards = page.locator("#answers > li:not(.failed)")
    page.locator("#answers .alike img").nth(11).wait_for(state="attached")
    assert HTML in cards.nth(0).inner_text(), "a name is text"

    page.locator("#alpha").focus()
    for key, count in (("End", 1), ("ArrowLeft", 3), ("Home", 1)):
        for _ in range(count):
            page.keyboard.press(key)
        alpha = float(page.evaluate("document.querySelector('#alpha-shown').textContent.replace(' %', '')"))
        moved = guard.at(round(alpha / 100, 6))
        page.locator("#promise", has_text=str(moved.guarantee)).wait_for()
        row = page.locator("#accepted tr", has_text="noise").inner_text()
        share = float((scores["noise"] <= moved.threshold).double().mean())
        assert f"{100 * share:.1f} %" in row
        for card, picture in ((cards.nth(1), shape()), (cards.nth(0), shape((20, 20, 200)))):
            assert moved.predict(picture).answer in card.locator("h3").inner_text()
    assert page.locator("#histogram .tried").count() == 2

    drop = """(content) => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        data.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, cancelable: true }));
    }"""
    page.evaluate(drop, base64.b64encode(encoded(shape())).decode())
    page.locator("#tally", has_text="4 answered").wait_for()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#clear").click()
    assert page.locator("#answers > li").count() == 0


def test_of_a_picture_that_moves_the_judged_frame_is_shown(served, page):
    file, frames = io.BytesIO(), [shape(), shape((20, 20, 200))]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=20)
    page.goto(f"{served.url}/try?run=fewer")
    page.locator("#trial").wait_for()
    page.set_input_files("#files", [{"name": "a.gif", "mimeType": "image/gif", "buffer": file.getvalue()}])
    page.locator("#tally", has_text="1 answered").wait_for()
    page.wait_for_timeout(200)  # ten frames
    canvas = "document.querySelector('#answers canvas')"
    assert page.evaluate(f"[{canvas}.width, {canvas}.height]") == [48, 40]
    pixel = page.evaluate(f"[...{canvas}.getContext('2d').getImageData(20, 20, 1, 1).data]")
    assert pixel == pytest.approx([200, 30, 30, 255], abs=8)


def test_the_camera_is_asked_only_when_it_is_wanted(served, chromium):
    """A camera that the browser makes up; it is off again once the window is closed."""
    context = chromium.new_context(permissions=["camera"])
    page = context.new_page()
    page.add_init_script(
        """window.asked = 0; window.stopped = 0;
        navigator.mediaDevices.getUserMedia = async () => {
            window.asked += 1;
            const canvas = document.createElement("canvas");
            canvas.width = 64; canvas.height = 48;
            const paint = () => canvas.getContext("2d").fillRect(0, 0, 64, 48);
            paint(); setInterval(paint, 50);
            const stream = canvas.captureStream(20);
            for (const track of stream.getTracks()) {
                const stop = track.stop.bind(track);
                track.stop = () => { window.stopped += 1; stop(); };
            }
            return stream;
        };"""
    )
    page.goto(f"{served.url}/try?run=fewer")
    page.locator("#trial").wait_for()
    assert page.evaluate("window.asked") == 0
    page.locator("#open-camera").click()
    page.locator("#shoot").click()
    page.locator("#answers h3", has_text="1").wait_for()
    page.locator("#tally", has_text="1 answered").wait_for()
    page.locator("#close-camera").click()
    assert page.evaluate("[window.asked, window.stopped]") == [1, 1]
    context.close()
