"""A whole run whose images and folder are in a bucket, on two machines one after the other."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from oodream.cli.main import main
from oodream.core.storage import cached_at
from oodream.data import remote
from oodream.run.sync import fetched, synchronised
from tests.helpers.bucket import objects, put
from tests.helpers.guarded import guard, output_names, save_clothes, save_logits
from tests.helpers.runs import RUN, command, images_of
from tests.helpers.serving import FORM, ask, encoded, form, garment, server
from tests.helpers.studio import studio


def test_another_machine_goes_on_by_the_same_command(
    s3, finished, shapes, tiny_pipeline, tmp_path, monkeypatch, capsys
):
    put(shapes, f"{s3}/shapes")
    args = [
        "run",
        "--data",
        f"{s3}/shapes",
        "--run",
        f"{s3}/runs/one",
        "--decode.source",
        str(tiny_pipeline),
        *RUN,
    ]
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "a"))
    remote.local_copy.cache_clear()
    assert main([*args, "--until", "vectors"]) == 0
    assert main(["decode", f"{s3}/runs/one", "--shard", "0/2"]) == 0
    capsys.readouterr()
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "b"))
    remote.local_copy.cache_clear()
    assert main(args) == 0
    said = capsys.readouterr().out
    for stage in ("classes", "align", "features", "vectors"):
        assert any(line.split() == [stage, "done", "before"] for line in said.splitlines()), said
    (here,) = (tmp_path / "b" / "runs").glob("*/*/runs/one")
    assert images_of(here) == images_of(finished)
    assert (here / "results.jsonl").read_bytes() == (finished / "results.jsonl").read_bytes()
    there = objects(f"{s3}/runs/one")
    assert there["report/index.html"] == (here / "report" / "index.html").read_bytes()
    assert not any(name.startswith(("cache/", ".lock", "classifier/baseline-s0/resume")) for name in there)
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "c"))
    score = ["score", f"{s3}/shapes/star/00.png", "--run", f"{s3}/runs/one", "--device", "cpu"]
    assert main(score) == 0
    assert "star/00.png" in capsys.readouterr().out
    assert not list((tmp_path / "c").rglob("*.png")), "what scoring does not need stays there"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--data", "shapes", "--run"),
        ("run", "--data", "shapes", "--dry-run", "--run"),
        ("compare", "--data", "shapes", "--run"),
        ("compare", "--data", "shapes", "--dry-run", "--run"),
        ("score", "shapes", "--run", "guard", "--out"),
        ("guard", "--model", "timm:resnet18", "--data", "shapes", "--dry-run", "--out"),
        ("fit-decoder", "shapes", "--out"),
        ("export", "guard", "--out"),
    ],
)
def test_a_place_that_is_lost_when_the_command_ends_is_refused_before_any_work(words, capsys):
    assert main([*words, "memory://place/table.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "memory://place/table.jsonl is the memory of this process, and lost when it ends. Give a" in said


def test_what_a_run_hands_over_goes_to_a_bucket(finished, s3, tmp_path, capsys):
    """A guard, imagined images and single rows: what comes there is what comes to a folder."""
    guard().save(tmp_path / "guard")

    def hand_over(to: str) -> str:
        capsys.readouterr()
        assert main(["export", str(tmp_path / "guard"), "--out", f"{to}/exported"]) == 0
        assert main(["export", str(finished), "--outliers", f"{to}/outliers"]) == 0
        assert main(["decode", str(finished), "--row", "4", "17", "--out", f"{to}/rows"]) == 0
        return capsys.readouterr().out

    said, url = hand_over(str(tmp_path / "here")), f"{s3}/there"
    assert hand_over(url) == said.replace(str(tmp_path / "here"), url)
    picture = str(next((tmp_path / "here" / "rows").iterdir()))
    assert main(["score", picture, "--run", f"{url}/exported", "--device", "cpu"]) == 0
    put(tmp_path / "here", f"{s3}/expected")
    assert objects(url) == objects(f"{s3}/expected")
    assert main(["export", str(tmp_path / "guard"), "--out", f"{url}/exported"]) == 2
    assert f"{url}/exported holds something already" in capsys.readouterr().err


def test_a_comparison_in_a_bucket_goes_on_elsewhere(shapes, tiny_pipeline, s3, tmp_path, monkeypatch, capsys):
    (tmp_path / "arms.json").write_text('{"one": {}, "two": {"regularize": {"max_outliers": 5}}}')
    args = command(shapes, tiny_pipeline, f"{s3}/both", "--arms", str(tmp_path / "arms.json"))[1:]
    assert main(["compare", *args, "--only", "one"]) == 0
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "b"))
    capsys.readouterr()
    assert main(["compare", *args]) == 0
    first = capsys.readouterr().out.partition("two: ")[0]
    assert first.count("done before") > 8
    assert first.count(" done") == first.count("done before"), first
    names = {p.relative_to(f).as_posix() for f in [fetched(f"{s3}/both", bool)] for p in f.rglob("*")}
    assert {"one/run.json", "two/report/index.html", "comparison.html"} <= names
    assert not any("cache" in name.split("/") for name in objects(f"{s3}/both"))


def test_a_run_in_a_bucket_is_asked_as_one_in_a_folder(finished, s3, tmp_path, capsys):
    """By commands that read it alone; what is there already is not fetched again."""
    with synchronised(f"{s3}/run", print) as folder:
        shutil.copytree(finished, folder, dirs_exist_ok=True)

    def answers(place: str) -> str:
        capsys.readouterr()
        assert main(["audit", place, "--json"]) in (0, 1)
        assert main(["export", place, "--outliers", f"{tmp_path / place.rpartition('/')[2]}"]) == 0
        return capsys.readouterr().out.partition("\n")[0]

    assert answers(f"{s3}/run") == answers(str(finished))
    picture = next((cached_at(f"{s3}/run", "read")).rglob("*.png"))
    before = picture.stat().st_ino
    assert main(["audit", f"{s3}/run"]) in (0, 1)
    assert picture.stat().st_ino == before
    assert main(["audit", f"{s3}/nothing"]) == 2
    assert f"There is nothing at {s3}/nothing" in capsys.readouterr().err


def test_a_guard_of_images_in_a_bucket_is_served_from_one(s3, tmp_path):
    save_logits(tmp_path / "net.pt2")
    (tmp_path / "labels.txt").write_text("\n".join(output_names()) + "\n")
    save_clothes(tmp_path / "photos", 400)
    put(tmp_path / "photos", f"{s3}/photos")
    network = ["--model", str(tmp_path / "net.pt2"), "--labels", str(tmp_path / "labels.txt")]
    made = ["--data", f"{s3}/photos", "--out", f"{s3}/guard", "--mean", "0", "--std", "1"]
    assert main(["guard", *network, *made, "--detectors", "energy", "--cache", str(tmp_path / "cache")]) == 0
    with server(f"{s3}/guard", "--plugins") as running:
        status, content = ask(running.port, "/predict", form(("0.png", encoded(garment(0)))), FORM)
    assert (status, len(json.loads(content)["predictions"])) == (200, 1)


def test_what_is_chosen_in_the_studio_goes_to_the_bucket(finished, s3, tmp_path, monkeypatch):
    guard().save(tmp_path / "guard")
    put(tmp_path / "guard", f"{s3}/guard")
    with synchronised(f"{s3}/run", print) as folder:
        shutil.copytree(finished, folder, dirs_exist_ok=True)
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "another machine"))
    with studio(f"{s3}/run", f"{s3}/guard") as running:
        of = json.loads(ask(running.port, "/api/outliers/run/rows")[1])["of"]
        decision = json.dumps({"rows": [1], "action": "reject", "of": of, "since": 0}).encode()
        json_sent = {"Content-Type": "application/json"}
        assert ask(running.port, "/api/outliers/run/curation", decision, json_sent)[0] == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
    assert b'"row": 1, "keep": false' in objects(f"{s3}/run")["curation.jsonl"]
