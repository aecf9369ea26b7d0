"""The server's answers are the guard's, whatever form a request has; what is refused is said; nothing is
written to disk.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from oodream.deploy.serving.app import create_app
from oodream.deploy.serving.limits import Limits
from oodream.deploy.serving.schema import Answers, Images, Problem
from tests.helpers.guarded import guard
from tests.helpers.serving import FORM, Brightness, encoded, form, garment, gray, values

FILES = [(f"{i}.png", encoded(garment(i))) for i in range(5)]
CONTENTS = [content for _, content in FILES]
HERE = "http://127.0.0.1:8000"


@contextmanager
def client(served=None, token=None, **limits):
    """A client of an application that serves `served`, with its `service`."""
    app = create_app(served or guard(), Limits(**limits), token)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as asking:
        asking.service = app.state.service
        yield asking


@pytest.fixture(scope="module")
def asking():
    with client(max_megapixels=1, max_pictures=8, max_megabytes=4) as asking:
        yield asking


def expected(predictions, names=None):
    """Predictions as the server writes them, but for what another batch or number of threads rounds."""
    texts = [{key: value for key, value in asdict(one).items() if value is not None} for one in predictions]
    named = (
        texts if names is None else [{"file": name, **one} for name, one in zip(names, texts, strict=True)]
    )
    return [
        {key: pytest.approx(x, abs=2e-3) if isinstance(x, float) else x for key, x in one.items()}
        for one in json.loads(json.dumps(named))
    ]


def in_json(*contents):
    return {"images": [base64.b64encode(content).decode() for content in contents]}


# Answers


def test_a_form_of_files_has_the_guards_answers(asking):
    answer = asking.post("/predict", content=form(*FILES), headers=FORM).json()
    assert answer["predictions"] == expected(guard().predict(CONTENTS), [name for name, _ in FILES])
    assert answer["guarantee"] == str(guard().guarantee)


def test_a_form_as_clients_write_it(asking):
    files = [("images", (name, content, "image/png")) for name, content in FILES]
    answer = asking.post("/predict", files=files).json()
    assert answer["predictions"] == expected(guard().predict(CONTENTS), [name for name, _ in FILES])


def test_a_request_of_data_urls_is_one_of_base64(asking):
    plain = in_json(*[CONTENTS[0]] * 8)
    urls = {"images": [f"data:image/png;base64,{text}" for text in plain["images"]]}
    asked = [asking.post("/predict", json=body).json()["predictions"] for body in (plain, urls)]
    assert len(asked[0]) == 8
    assert asked[1] == asked[0]


def test_base64_in_json_has_the_guards_answers(asking):
    answer = asking.post("/predict", json=in_json(*CONTENTS)).json()
    assert answer["predictions"] == expected(guard().predict(CONTENTS))


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_a_file_as_it_is_has_the_guards_answer(asking, kind):
    answer = asking.post("/predict", content=CONTENTS[0], headers={"Content-Type": kind}).json()
    assert answer["predictions"] == expected(guard().predict(CONTENTS[:1]))


def test_another_rate_and_sets(asking):
    answer = asking.post("/predict?alpha=0.2&candidates=0.02", json=in_json(*CONTENTS)).json()
    moved = guard().at(0.2)
    assert answer["predictions"] == expected(moved.predict_set(CONTENTS, 0.02))
    assert answer["guarantee"] == str(moved.guarantee)
    assert all(one["candidates"] for one in answer["predictions"])


def test_flagged_pictures_are_unknown(asking):
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), dtype=np.uint8)
    answer = asking.post("/predict?alpha=0.3", json=in_json(*(encoded(Image.fromarray(x)) for x in noise)))
    predictions = answer.json()["predictions"]
    assert {one["answer"] for one in predictions if one["flagged"]} == {"unknown"}


def test_a_request_of_more_pictures_than_a_pass_takes():
    with client(batch=2) as asking:
        answer = asking.post("/predict", json=in_json(*CONTENTS)).json()
        scores = [one["score"] for one in answer["predictions"]]
        assert scores == pytest.approx([one.score for one in guard().predict(CONTENTS)], abs=1e-4)
        assert values(asking.get("/metrics").text)["oodream_pass_pictures_count"] == 3


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_formats(asking, format):
    content = encoded(garment(3), format)
    answer = asking.post("/predict", content=content, headers={"Content-Type": "image/any"}).json()
    assert answer["predictions"] == expected(guard().predict([content]))


def test_any_object_with_a_guards_methods_is_served():
    served = Brightness()
    with client(served) as asking:
        answer = asking.post("/predict", json=in_json(gray(50), gray(150))).json()
        assert [one["answer"] for one in answer["predictions"]] == ["dark", "unknown"]
        moved = asking.post("/predict?alpha=0.8", json=in_json(gray(50), gray(60))).json()
        assert [one["flagged"] for one in moved["predictions"]] == [False, True]
        refused = asking.post("/predict?candidates=0.1", json=in_json(gray(50)))
        assert (refused.status_code, refused.json()) == (422, {"detail": "This guard makes no sets."})
    assert served.added == [50, 150, 50, 60]


# Refusals


def post(asking, content=b"", kind="application/json", query=""):
    return asking.post(f"/predict{query}", content=content, headers={"Content-Type": kind})


def bomb(width, height):
    return encoded(Image.new("1", (width, height)))


def scans(n):
    """A progressive JPEG whose last scan is repeated."""
    content = encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True)
    last = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + last * n + content[-2:]


IMAGE, MULTIPART = "image/png", FORM["Content-Type"]
NO_FILE = b'--boundary\r\nContent-Disposition: form-data; name="alpha"\r\n\r\n1\r\n--boundary--\r\n'


@pytest.mark.parametrize(
    ("status", "words", "arguments"),
    [
        (422, "Picture 0 is no picture", (b"words", IMAGE)),
        (422, "Picture 1 (b.txt) is no picture", (form(FILES[0], ("b.txt", b"words")), MULTIPART)),
        (422, "is no picture: HEIC", (b"\0\0\0\x18ftypheic" + b"\0" * 60, IMAGE)),
        (422, "Picture 0 cannot be read: image file is truncated", (CONTENTS[0][:-90], IMAGE)),
        (422, "Picture 0 is TGA; the server reads AVIF, BMP", (encoded(garment(0), "TGA"), IMAGE)),
        (422, "has 1.1 million pixels, and may have 1", (bomb(1100, 1000), IMAGE)),
        (422, "0 has more than the 1 million pixels that it may have.", (b"P6 20000 20000 255\n", IMAGE)),
        (422, "is a JPEG of 210 scans, and may have 25", (scans(200), IMAGE)),
        (422, "There is no picture", (b'{"images": []}',)),
        (422, "There is no picture", (form(), MULTIPART)),
        (422, "Picture 0 is no base64", (b'{"images": ["?"]}',)),
        (422, "Picture 0 is no base64", (b'{"images": ["data:image/png,AAAA"]}',)),
        (422, "images: Field required", (b"{}",)),
        (422, "alpha: Extra inputs are not permitted", (b'{"images": [""], "alpha": 1}',)),
        (422, "Invalid JSON", (b"{",)),
        (422, "Invalid JSON", (b"[" * 1_000_000,)),
        (413, "at most 8 pictures", (json.dumps({"images": [""] * 9}).encode(),)),
        (413, "at most 8 pictures", (b"[0" + b",0" * 1_000_000 + b"]",)),
        (413, "at most 8 pictures", (form(*[("", b"")] * 9), MULTIPART)),
        (413, "at most 8 pictures", (form(("", b"\r\n--boundary" * 100_000)), MULTIPART)),
        (413, "A body has at most 4 million bytes", (bytes(4_000_001), IMAGE)),
        (400, "'alpha' is no file; alpha and candidates belong in the address", (NO_FILE, MULTIPART)),
        (400, "it has no end", (form(*FILES)[:-20], MULTIPART)),
        (400, "The form is damaged", (b"no form", MULTIPART)),
        (400, "The form is damaged", (form(), "multipart/form-data")),
        (400, "Maximum header", (form(("", b"")).replace(b"\r\n\r\n", b"\r\na: b" * 99), MULTIPART)),
        (415, "multipart/form-data", (b"a=b", "application/x-www-form-urlencoded")),
        (415, "multipart/form-data", (b"a=b", "")),
        (422, "alpha: Input should be less than 1", (CONTENTS[0], IMAGE, "?alpha=5")),
        (422, "alpha: Input should be a valid number", (CONTENTS[0], IMAGE, "?alpha=much")),
        (422, "alpha: Input should be less than 1", (CONTENTS[0], IMAGE, "?alpha=nan")),
        (422, "candidates: Input should be greater than 0", (CONTENTS[0], IMAGE, "?candidates=0")),
        (422, "there are 1,000: these can guarantee 0.003", (CONTENTS[0], IMAGE, "?alpha=1e-9")),
        (422, "these allow 0.001 and more", (CONTENTS[0], IMAGE, "?candidates=1e-9")),
        (422, "no parameter 'alfa'. Did you mean 'alpha'?", (CONTENTS[0], IMAGE, "?alfa=0.3")),
        (422, "no parameter 'seed'. There are: alpha, cand", (CONTENTS[0], IMAGE, "?alpha=0.3&seed=")),
        (422, "The parameter 'alpha' is there 2 times", (CONTENTS[0], IMAGE, "?alpha=0.3&alpha=0.2")),
    ],
)
def test_what_is_refused_is_said(asking, status, words, arguments):
    response = post(asking, *arguments)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]


def test_all_pictures_that_cannot_be_read_are_named(asking):
    detail = post(asking, form(("a", b"x"), FILES[0], ("c", b"y")), MULTIPART).json()["detail"]
    assert detail == "Picture 0 (a) is no picture; Picture 2 (c) is no picture."


def test_a_body_without_a_stated_length(asking):
    response = asking.post("/predict", content=iter([CONTENTS[0]]), headers={"Content-Type": IMAGE})
    assert response.status_code == 411


def test_a_fault_of_the_guard_is_no_fault_of_the_client():
    class Broken(Brightness):
        def predict(self, pictures):
            raise RuntimeError("out of memory")

    with client(Broken()) as asking:
        assert post(asking, gray(1), IMAGE).status_code == 500
        assert (
            values(asking.get("/metrics").text)['oodream_requests_total{path="/predict",status="500"}'] == 1
        )


def test_an_answer_that_takes_too_long(monkeypatch):
    with client(Brightness(), answer_timeout=0.05, batch_delay=1.0) as asking:
        response = post(asking, gray(1), IMAGE)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "no answer within 0.05 seconds" in response.json()["detail"]


def test_limits_that_contradict_each_other():
    with pytest.raises(ValueError, match=r"max_held \(1\) must be at least max_megabytes \(32\)"):
        Limits(max_held=1)


# Who may ask


@pytest.mark.parametrize("path", ["/predict", "/metrics"])
def test_a_token_is_asked_for(path):
    with client(Brightness(), token="secret-of-many-letters") as asking:
        method = "POST" if path == "/predict" else "GET"
        body = {"content": gray(1)} if path == "/predict" else {}

        def status(**headers):
            return asking.request(
                method, path, headers={"Content-Type": IMAGE, **headers}, **body
            ).status_code

        assert status() == 401
        assert status(Authorization="Bearer secret-of-many-lettert") == 401
        assert status(Authorization="Bearer ") == 401
        assert status(Authorization="Basic secret-of-many-letters") == 401
        assert status(Authorization="Bearer secret-of-many-letters") == 200
        assert status(Authorization="Bearer secret-of-many-letters", Host="guard.example") == 200
        assert asking.get("/health").status_code == 200


@pytest.mark.parametrize(("host", "status"), [("localhost:1", 200), ("[::1]:1", 200), ("guard.example", 400)])
def test_without_a_token_only_names_of_this_machine_are_answered(asking, host, status):
    assert asking.get("/health", headers={"Host": host}).status_code == status


# What is counted and described


def test_metrics_count_what_was_asked_and_answered():
    with client(max_pictures=64) as asking:
        several = [encoded(garment(i)) for i in range(40)]
        predictions = guard().predict(several)
        post(asking, json.dumps(in_json(*several)).encode())
        post(asking, b"{}")
        asking.get("/wp-login.php")
        found = values(asking.get("/metrics").text)
    drift = guard().drift([one.score for one in predictions])
    flagged = sum(one.flagged for one in predictions)
    assert found['oodream_pictures_total{flagged="true"}'] == flagged
    assert found['oodream_pictures_total{flagged="false"}'] == 40 - flagged
    assert found["oodream_flagged_share"] == drift.latest.share
    assert found["oodream_drift_evidence"] == pytest.approx(drift.evidence, abs=0.05)
    assert found['oodream_requests_total{path="/predict",status="200"}'] == 1
    assert found['oodream_requests_total{path="/predict",status="422"}'] == 1
    assert found['oodream_requests_total{path="other",status="404"}'] == 1
    assert found['oodream_request_seconds_count{path="/predict"}'] == 2
    assert found['oodream_request_seconds_sum{path="/predict"}'] > found["oodream_pass_seconds_sum"] > 0
    assert found["oodream_pass_pictures_sum"] == 40
    assert found["oodream_requests_under_way"] == 1  # the one that asks


def test_a_score_that_is_no_number_is_flagged_and_leaves_drift_alone():
    class Lost(Brightness):
        def _prediction(self, score):
            return super()._prediction(float("nan"))

    served = Lost(threshold=-1.0)
    with client(served) as asking:
        answer = post(asking, gray(1), IMAGE)
        assert answer.status_code == 200
        assert answer.json()["predictions"][0]["score"] is None
    assert served.added == []


def test_health_says_when_the_server_stops(asking):
    assert asking.get("/health").json() == {"status": "ok"}
    asking.service.stopping = True
    try:
        response = asking.get("/health")
    finally:
        asking.service.stopping = False
    assert (response.status_code, response.json()) == (503, {"status": "stopping"})
    assert response.headers["connection"] == "close"


def test_the_description_is_true(asking):
    api = asking.get("/openapi.json").json()
    assert set(api["paths"]) == {"/predict", "/health", "/metrics"}
    predict = api["paths"]["/predict"]["post"]
    assert {one["name"] for one in predict["parameters"]} == {"alpha", "candidates"}
    body = predict["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json", "image/*"}
    for example in body["application/json"]["schema"]["examples"]:
        assert asking.post("/predict", json=example).status_code == 200
    schemas = api["components"]["schemas"]
    for model in (Answers, Problem):
        for example in schemas[model.__name__]["examples"]:
            model.model_validate(example)
    assert Images.model_json_schema()["additionalProperties"] is False
    assert {"401", "408", "411", "413", "415", "422", "503"} <= set(predict["responses"])


# The disk

WRITTEN: list[str] = []
WATCHING = [False]


def _note(event: str, arguments: tuple) -> None:
    if WATCHING[0] and event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        WRITTEN.append(str(arguments[0]))


@pytest.fixture
def written():
    """The files that this process opens for writing."""
    if not hasattr(_note, "installed"):
        sys.addaudithook(_note)
        _note.installed = True
    WRITTEN.clear()
    WATCHING[0] = True
    yield WRITTEN
    WATCHING[0] = False


def test_no_picture_is_written_to_disk(asking, tmp_path, written):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    large = encoded(Image.fromarray(noise))
    assert 1_200_000 < len(large) < 2_000_000  # parsers of forms put so much into a file
    for content, kind in (
        (form(("large.png", large), ("more.png", large)), MULTIPART),
        (json.dumps(in_json(large)).encode(), "application/json"),
        (large, IMAGE),
        (form(("large.png", large[:-9])), MULTIPART),
    ):
        post(asking, content, kind)
    assert written == []
    (tmp_path / "seen").write_text("")
    assert written == [str(tmp_path / "seen")]
