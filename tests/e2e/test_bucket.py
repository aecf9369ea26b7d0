"""A whole run whose images and folder are in a bucket, on two machines one after the other."""

from __future__ import annotations

import shutil

import pytest

from oodream.cli.main import main
from oodream.data import remote
from tests.helpers.bucket import KINDS, bucket, objects, put
from tests.helpers.runs import RUN, images_of


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
