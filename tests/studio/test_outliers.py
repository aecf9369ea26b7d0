"""The gallery without a browser: its table, pictures, scores and decisions."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from oodream.config import Config, SampleConfig
from oodream.core.files import read_json
from oodream.data.inputs import DataInputs
from oodream.run.artifacts import Run
from oodream.run.curation import REJECTED
from tests.helpers.begun import begin_run
from tests.helpers.studio import client, color_of, imagined_run

AT = "/api/outliers/pictures"


@pytest.fixture
def run(tmp_path):
    return imagined_run(tmp_path / "pictures", 10)


def pixels(answer) -> torch.Tensor:
    assert answer.status_code == 200, answer.text
    image = Image.open(io.BytesIO(answer.content)).convert("RGB")
    return (
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(*image.size, 3).permute(2, 0, 1)
    )


def test_what_a_run_imagines_is_called_by_its_kind(tmp_path, run):
    """A run of inliers has no outliers on any page."""
    inliers = begin_run(tmp_path / "near", Config(sample=SampleConfig(options={"kind": "inlier"})))
    asking = client(run, inliers.folder.path)
    for part in ("", "outliers", "imagine"):
        text = asking.get(f"/{part}?run=near").text
        assert ">Inliers</a>" in text or ">Inliers</strong>" in text
        assert 'data-imagined="inliers"' in text
        assert not re.search(r"[ >]outlier", text, re.IGNORECASE)
        assert 'data-imagined="outliers"' in asking.get(f"/{part}?run=pictures").text
    assert "<h1>Inliers</h1>" in asking.get("/outliers?run=near").text
    assert {one["name"]: one["imagined"] for one in asking.get("/api/run").json()} == {
        "pictures": "outliers", "near": "inliers",
    }  # fmt: skip


def test_the_table_says_what_the_run_says(finished):
    run, table = Run.open(finished), client(finished).get("/api/outliers/calm/rows").json()
    assert table["count"] == 24
    assert table["classes"] == list(run.book.names)
    for m, line in enumerate(run.provenance):
        assert table["classes"][table["class"][m]] == line["class"]
        assert table["words"][table["word"][m]] == line["words"][0]
        assert table["distance"][m] == pytest.approx(line["knn_distance"], abs=1e-4)
        assert (table["reason"][m] < 0) == run.keep_mask[m]


def test_pictures_and_anchors_are_those_of_the_run(finished):
    run, asking = Run.open(finished), client(finished)
    train = DataInputs(run.config).train
    for m in (0, 23):
        assert torch.equal(pixels(asking.get(f"/api/outliers/calm/pictures/{m}")), run.images.batch([m])[0])
        anchor = train.batch([run.provenance[m]["anchor_index"]])[0]
        assert torch.equal(pixels(asking.get(f"/api/outliers/calm/anchors/{m}")), anchor)
    details = asking.get("/api/outliers/calm/rows/23").json()
    assert details["seed"] == str(run.provenance[23]["seed"])
    assert details["prompt"] == run.provenance[23]["prompt"]
    assert details["anchor"] == run.provenance[23]["anchor"]


def test_scores_are_those_of_both_classifiers(finished):
    asking, run = client(finished), Run.open(finished)
    answer = asking.post("/api/outliers/calm/scores").json()
    ends = time.monotonic() + 60
    while "task" in answer and time.monotonic() < ends:
        time.sleep(0.1)
        answer = asking.post("/api/outliers/calm/scores").json()
    for kind in ("baseline", "regularized"):
        classifier = run.classifier(kind)
        predictions = list(classifier(run.images, torch.device("cpu")))
        part = answer["scores"][kind]
        assert part["score"] == pytest.approx([p.score for p in predictions], abs=1e-3)
        assert part["threshold"] == classifier.threshold, "or a score would be on its other side"
        assert [run.book.names[y] for y in part["likeliest"]] == [p.likeliest for p in predictions]


def decide(asking, rows: list[int], action: str, since: int = 0):
    of = asking.get(f"{AT}/rows").json()["of"]
    return asking.post(f"{AT}/curation", json={"rows": rows, "action": action, "of": of, "since": since})


def test_before_a_classifier_is_trained_nothing_is_scored(run, finished):
    asking = client(run)
    assert asking.post(f"{AT}/scores").json() == {"scores": {}}
    assert asking.app.state.service.worker.tasks() == []
    now = asking.get(f"{AT}/curation").json()
    assert (now["classifier"], now["trained"]) == (False, False)
    now = client(finished).get("/api/outliers/calm/curation").json()
    assert (now["classifier"], now["trained"]) == (True, True)


def test_two_pages_learn_of_each_others_decisions(run):
    one, two = client(run), client(run)  # two programs, even
    assert decide(one, [0, 1], "reject").json()["states"] == {"0": False, "1": False}
    answer = decide(two, [4], "keep", since=2).json()  # a filter drops it
    assert answer["states"] == {"4": True}
    assert answer["version"] == 3
    assert one.get(f"{AT}/curation?since=2").json()["states"] == {"4": True}
    undone = one.post(f"{AT}/undo", json={"since": 3}).json()
    assert undone["states"] == {"4": None}
    assert undone["undone"] == [4]
    assert two.get(f"{AT}/curation?since=0").json()["states"] == {"0": False, "1": False, "4": None}
    undone = two.post(f"{AT}/undo", json={"since": 4}).json()
    assert undone["states"] == {"0": None, "1": None}
    assert not undone["undo"]
    assert two.post(f"{AT}/undo", json={}).json() == {"detail": "There is nothing to undo."}


def test_to_keep_what_no_filter_drops_is_to_take_a_rejection_back(run):
    asking = client(run)
    decide(asking, [0], "reject")
    assert Run.open(run).drop_reasons[0] == REJECTED
    assert decide(asking, [0, 1, 4], "keep").json()["states"] == {"0": None, "4": True}
    assert Run.open(run).keep_mask.tolist() == [m != 9 for m in range(10)]


@pytest.mark.parametrize(
    "body",
    [
        {"rows": [], "action": "reject"},
        {"rows": [10], "action": "reject"},
        {"rows": [-1], "action": "reject"},
        {"rows": ["../1"], "action": "reject"},
        {"rows": [1], "action": "delete"},
        {"rows": [1], "action": "reject", "since": -1},
        {"rows": 1, "action": "reject"},
    ],
)
def test_decisions_that_make_no_sense_are_refused(run, body):
    asking = client(run)
    of = asking.get(f"{AT}/rows").json()["of"]
    answer = asking.post(f"{AT}/curation", json={"of": of, **body})
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert not (run / "curation.jsonl").exists()


def test_a_page_of_other_images_decides_nothing(run):
    answer = client(run).post(f"{AT}/curation", json={"rows": [1], "action": "reject", "of": "others"})
    assert "Load the page again" in answer.json()["detail"]


def test_a_run_that_goes_on_is_seen(run):
    """The filter is done only later, and another time with other images."""
    stamp = (run / "filter" / "stage.json").read_text()
    (run / "filter" / "stage.json").unlink()
    asking = client(run)
    assert asking.get(f"{AT}/rows").json()["reasons"] == []
    (run / "filter" / "stage.json").write_text(stamp)
    ends = time.monotonic() + 60
    while not asking.get(f"{AT}/rows").json()["reasons"]:
        assert time.monotonic() < ends
        time.sleep(0.1)
    file, before = run / "images" / "imagined" / "stage.json", asking.get(f"{AT}/rows").json()["of"]
    file.write_text(json.dumps(read_json(file) | {"inputs": {"of": 11}}))
    while asking.get(f"{AT}/rows").json()["of"] == before:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_run_that_has_imagined_nothing_yet_says_so(run):
    (run / "images" / "imagined" / "stage.json").unlink()
    answer = client(run).get(f"{AT}/rows")
    assert answer.status_code == 422
    assert "has not imagined its outliers yet" in answer.json()["detail"]


def test_what_is_damaged_or_moved_is_said(run):
    asking = client(run)
    assert asking.get(f"{AT}/anchors/0").status_code == 422
    file = sorted((run / "images" / "imagined").rglob("*.png"))[0]
    file.write_bytes(b"\x89PNG\r\n")
    answer = asking.get(f"{AT}/pictures/0")
    assert "000000.png is damaged" in answer.json()["detail"]
    (run / "curation.jsonl").write_text("nonsense\n")
    assert "curation.jsonl, line 1" in asking.get(f"{AT}/curation").json()["detail"]


def test_pictures_are_kept_by_the_browser_as_long_as_they_are_those(run):
    asking = client(run)
    of = asking.get(f"{AT}/rows").json()["of"]
    answer = asking.get(f"{AT}/pictures/3?of={of}")
    assert "immutable" in answer.headers["Cache-Control"]
    assert pixels(answer)[:, 0, 0].tolist() == list(color_of(3))
    assert asking.get(f"{AT}/pictures/3?of=other").headers["Cache-Control"] == "no-store"


def test_runs_of_one_name_and_strange_names_have_each_their_own(tmp_path):
    folders = [imagined_run(tmp_path / parent / "a run? #1%", n) for n, parent in ((3, "x"), (4, "y"))]
    asking = client(*folders)
    names = asking.app.state.service.names
    assert len(set(names)) == 2
    from urllib.parse import quote

    counts = [asking.get(f"/api/outliers/{quote(name, safe='')}/rows").json()["count"] for name in names]
    assert counts == [3, 4]
    assert Path(shutil.move(folders[0], tmp_path / "gone")).exists()
    assert asking.get(f"/outliers?run={quote(names[0])}").status_code == 200
