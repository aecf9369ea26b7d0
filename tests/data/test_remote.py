"""Image folders in buckets: copied once, looked at again, or read one by one."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from oodream.cli.main import main
from oodream.config import Config
from oodream.core.errors import StoreError
from oodream.core.storage import Storage
from oodream.data import remote
from oodream.data.inputs import DataInputs
from oodream.data.stream import open_pictures
from tests.helpers.bucket import KINDS, bucket, put


@pytest.fixture(params=KINDS)
def url(request, monkeypatch, tmp_path):
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path / "cache"))
    with bucket(request.param, monkeypatch) as url:
        yield f"{url}/photos"


@pytest.fixture
def fetches(monkeypatch):
    """The names that are fetched."""
    fetch, names = Storage.fetch, []

    def watched(self, name, file):
        names.append(name)
        fetch(self, name, file)

    monkeypatch.setattr(Storage, "fetch", watched)
    return names


def copy(url: str) -> Path:
    remote.local_copy.cache_clear()
    return remote.local_copy(url)


def test_only_what_has_changed_is_fetched_again(url, fetches, tmp_path):
    for name in ("fox/1.png", "fox/2.png", "cat/1.png", ".DS_Store", "fox/.hidden"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(name)
    put(tmp_path / "photos", url)
    folder = copy(url)
    assert sorted(fetches) == ["cat/1.png", "fox/1.png", "fox/2.png"]
    assert (folder / "fox" / "2.png").read_text() == "fox/2.png"
    fetches.clear()
    assert copy(url) == folder
    assert fetches == []
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/fox/1.png", b"another")
    fs.rm_file(f"{root}/cat/1.png")
    (folder / "fox" / "2.png").unlink()
    copy(url)
    assert sorted(fetches) == ["fox/1.png", "fox/2.png"]
    assert {str(f.relative_to(folder)) for f in folder.rglob("*.png")} == {"fox/1.png", "fox/2.png"}
    assert (folder / "fox" / "1.png").read_text() == "another"


def test_a_copy_that_was_broken_off_goes_on(url, monkeypatch, tmp_path):
    for i in range(40):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{i:02}.png").write_text(str(i))
    put(tmp_path / "photos", url)
    fetch, names = Storage.fetch, []

    def failing(self, name, file):
        if len(names) == 20:
            raise StoreError("The server says 503.")
        names.append(name)
        fetch(self, name, file)

    with monkeypatch.context() as patch:
        patch.setattr(remote, "THREADS", 1)
        patch.setattr(Storage, "fetch", failing)
        with pytest.raises(StoreError, match="503"):
            copy(url)
    first = set(names)
    monkeypatch.setattr(
        Storage, "fetch", lambda self, name, file: (names.append(name), fetch(self, name, file))
    )
    copy(url)
    assert sorted(names) == [f"{i:02}.png" for i in range(40)]
    assert len(first) == 20


def test_the_configuration_names_folders_here(url, shapes, tmp_path):
    put(shapes, f"{url}/known")
    put(shapes / "star", f"{url}/unknown")
    remote.local_copy.cache_clear()
    config = Config(data=f"{url}/known", ood=(f"near:stars={url}/unknown",), size=16)
    inputs = DataInputs(config)
    inputs.check()
    here = DataInputs(Config(data=str(shapes), size=16))
    assert inputs.train.fingerprint() == here.train.fingerprint()
    (near,) = (s for s in inputs.ood if s.group == "near")
    assert (near.name, len(near.images)) == ("stars", 20)
    nothing = DataInputs(Config(data=f"{url}/nowhere"))
    with pytest.raises(StoreError, match="There is nothing at"):
        nothing.check()


def test_pictures_are_scored_where_they_are(url, finished, shapes, tmp_path, fetches, capsys):
    put(shapes, url)
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/star/zz.png", b"no picture")
    fs.pipe_file(f"{root}/star/notes.txt", b"no picture")
    args = ["score", "--run", str(finished), "--device", "cpu", "--out"]
    assert main([*args, str(tmp_path / "there.jsonl"), url]) == 2
    assert main([*args, str(tmp_path / "here.jsonl"), str(shapes)]) == 0
    there, here = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("there", "here")
    )
    assert there.pop()["error"].startswith("cannot identify image file")
    assert len(there) == len(here) == 60
    for one, other in zip(there, here, strict=True):
        assert one.pop("file") == f"{url}/{Path(other.pop('file')).relative_to(shapes).as_posix()}"
        assert one == other
    assert fetches == []


def test_a_picture_that_is_gone_is_a_row_and_a_server_that_fails_is_an_error(
    url, finished, shapes, tmp_path, capsys
):
    put(shapes / "star", url)
    listed = tmp_path / "some.txt"
    listed.write_text(f"{url}/00.png\n{url}/gone.png\n")
    args = ["score", str(listed), "--run", str(finished), "--device", "cpu", "--out"]
    assert main([*args, str(tmp_path / "a.jsonl")]) == 2
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[0]["error"] is None
    assert "gone.png" in rows[1]["error"]


def test_lists_and_single_pictures(url, shapes, tmp_path):
    put(shapes, url)
    names = [name for name, _ in open_pictures([f"{url}/star/03.png", str(shapes / "star" / "04.png")],
                                               tmp_path / "list").read()]  # fmt: skip
    assert names == [f"{url}/star/03.png", str(shapes / "star" / "04.png")]
