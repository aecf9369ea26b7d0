"""A whole run whose images and folder are in a bucket, on two machines one after the other."""

from __future__ import annotations

import shutil

import pytest

from oodream.cli.main import main
from oodream.data import remote
from oodream.run.sync import fetched
from tests.helpers.bucket import KINDS, bucket, objects, put
from tests.helpers.guarded import guard
from tests.helpers.runs import RUN, command, images_of


@pytest.fixture(params=KINDS)
def url(request, monkeypatch):
    with bucket(request.param, monkeypatch) as url:
        yield url


def test_another_machine_goes_on_by_the_same_command(
    url, finished, shapes, tiny_pipeline, tmp_path, monkeypatch, capsys
):
    put(shapes, f"{url}/shapes")
    args = [
        "run",
        "--data",
        f"{url}/shapes",
        "--run",
        f"{url}/runs/one",
        "--decode.source",
        str(tiny_pipeline),
        *RUN,
    ]
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "a"))
    remote.local_copy.cache_clear()
    assert main([*args, "--until", "vectors"]) == 0
    assert main(["decode", f"{url}/runs/one", "--shard", "0/2"]) == 0
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
    there = objects(f"{url}/runs/one")
    assert there["report/index.html"] == (here / "report" / "index.html").read_bytes()
    assert not any(name.startswith(("cache/", ".lock", "classifier/baseline-s0/resume")) for name in there)
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "c"))
    score = ["score", f"{url}/shapes/star/00.png", "--run", f"{url}/runs/one", "--device", "cpu"]
    assert main(score) == 0
    assert "star/00.png" in capsys.readouterr().out
    assert not list((tmp_path / "c").rglob("*.png")), "what scoring does not need stays there"


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
