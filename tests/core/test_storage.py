"""Folders in buckets, and what is said where they cannot be had."""

from __future__ import annotations

import errno
from importlib.util import find_spec

import fsspec
import pytest

from oodream.core.errors import StoreError
from oodream.core.options import ConfigError
from oodream.core.storage import Storage, cached_at, is_url
from tests.helpers.bucket import KINDS, bucket, forget, objects


@pytest.fixture(params=KINDS)
def url(request, monkeypatch):
    with bucket(request.param, monkeypatch) as url:
        yield f"{url}/some folder"


def test_files_come_and_go_whole(url, tmp_path):
    storage = Storage(url)
    storage.reach(write=True)
    assert objects(url) == {}, "nothing is left of the look"
    assert storage.listed("a") == []
    for name in ("a/2.bin", "a/1.bin", "b.bin"):
        (tmp_path / "x").write_bytes(name.encode())
        with (tmp_path / "x").open("rb") as file:
            storage.send(file, name)
    storage.create("c", b"first")
    with pytest.raises(FileExistsError):
        storage.create("c", b"second")
    assert storage.read("c") == b"first"
    assert [(name, size) for name, size, _ in storage.walk()] == [
        ("b.bin", 5), ("c", 5), ("a/1.bin", 7), ("a/2.bin", 7),
    ]  # fmt: skip
    assert storage.listed("a") == ["1.bin", "2.bin"]
    storage.fetch("a/1.bin", tmp_path / "deep" / "here")
    assert (tmp_path / "deep" / "here").read_bytes() == b"a/1.bin"
    storage.remove("c")
    storage.remove("c")
    with pytest.raises(FileNotFoundError):
        storage.fetch("c", tmp_path / "deep" / "there")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["here"]


def test_a_copy_says_which_side_fails(monkeypatch, tmp_path):
    """While it is read: the storage refuses, or this machine has no room."""
    with bucket("memory", monkeypatch) as url:
        storage = Storage(url)
        storage.create("x", b"content")
        there = storage.fs.open(f"{storage.root}/x", "rb")
        monkeypatch.setattr(storage.fs, "open", lambda *_: there)
        for error, said in (
            (errno.EACCES, "credentials of the environment"),
            (errno.EIO, "cannot be reached"),
        ):
            monkeypatch.setattr(there, "read", lambda _, e=error: raised(OSError(e, "no")))
            with pytest.raises(StoreError, match=f"^{url}.*{said}"):
                storage.fetch("x", tmp_path / "x")
        parts = [b"content", b""]
        monkeypatch.setattr(there, "read", lambda _: parts.pop(0))
        monkeypatch.setattr("oodream.core.files.os.replace", lambda *_: raised(OSError(errno.ENOSPC, "no")))
        with pytest.raises(StoreError, match=r"The disk is full at .*x"):
            storage.fetch("x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def raised(error: Exception) -> None:
    raise error


def test_tags_change_with_contents(url):
    storage = Storage(url)
    storage.create("a", b"one")
    storage.create("b", b"one")
    before = {name: tag for name, _, tag in storage.walk()}
    storage.fs.pipe_file(f"{storage.root}/a", b"two")
    after = {name: tag for name, _, tag in storage.walk()}
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


def test_what_is_a_url():
    assert is_url("s3://bucket/folder")
    assert not any(map(is_url, ("photos", "/photos", "hub:owner/name", "C:\\photos", "near=s3://bucket")))


def test_what_is_there_is_told_and_not_written_over(url, tmp_path):
    storage = Storage(url)
    (tmp_path / "x").write_bytes(b"first")
    assert not storage.has("a/x")
    storage.send_new(tmp_path / "x", "a/x")
    assert storage.has("a/x")
    assert not storage.has("a")
    (tmp_path / "x").write_bytes(b"second")
    with pytest.raises(FileExistsError):
        storage.send_new(tmp_path / "x", "a/x")
    assert storage.read("a/x") == b"first"
    assert storage.listed("") == ["a"]


def test_a_file_is_not_written_over_though_it_came_between_the_look_and_the_sending(
    s3, tmp_path, monkeypatch
):
    (tmp_path / "x").write_bytes(b"second")
    storage = Storage(s3)
    storage.create("x", b"first")
    monkeypatch.setattr(storage, "has", lambda name: False)
    with pytest.raises(FileExistsError):
        storage.send_new(tmp_path / "x", "x")
    assert storage.read("x") == b"first"


def test_copies_lie_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("OODREAM_CACHE", str(tmp_path))
    assert cached_at("s3://bucket/a/b/", "data") == tmp_path / "data" / "s3" / "bucket" / "a" / "b"


def test_a_missing_package_is_named(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(
        ConfigError, match=r"s3://bucket needs a package .*Install s3fs.* pip install '\.\[s3\]'"
    ):
        Storage("s3://bucket")


def test_passwords_and_unknown_places_are_refused():
    with pytest.raises(ConfigError, match="credentials come from the environment"):
        Storage("s3://key:secret@bucket/folder")
    with pytest.raises(ConfigError, match="fsspec knows no such place: nowhere://x"):
        Storage("nowhere://x")


def test_nothing_to_read_is_said(url):
    with pytest.raises(StoreError, match="There is nothing at"):
        Storage(url).reach()
    with pytest.raises(StoreError, match="There is nothing at"):
        list(Storage(url).walk())


def test_a_server_that_makes_a_file_twice_is_refused(url, monkeypatch):
    storage = Storage(url)
    pipe = storage.fs.pipe_file
    monkeypatch.setattr(storage.fs, "pipe_file", lambda path, data, mode: pipe(path, data))
    with pytest.raises(StoreError, match="take a server with conditional writes"):
        storage.reach(write=True)
    assert objects(url) == {}


def test_a_bucket_that_is_not_there_cannot_be_written(s3):
    with pytest.raises(StoreError, match=r"cannot be written: .*Make the bucket first"):
        Storage("s3://no-such-bucket/folder").reach(write=True)


def test_a_missing_permission_is_said(s3, monkeypatch):
    def denied(*_, **__):
        raise PermissionError("Access Denied")

    storage = Storage(s3)
    monkeypatch.setattr(storage.fs, "pipe_file", denied)
    with pytest.raises(StoreError, match=r"may not be read or written .*: Access Denied"):
        storage.reach(write=True)


@pytest.mark.skipif(not find_spec("s3fs"), reason="needs s3fs")
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
         "cannot be reached: Could not connect"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"},
         "cannot be reached: Unable to locate credentials"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_reached_is_said(environment, message, monkeypatch, tmp_path):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in {"HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1", **environment}.items():
        monkeypatch.setenv(key, value)
    forget()
    with pytest.raises(StoreError, match=message):
        Storage("s3://bucket").reach()
    forget()


def test_folders_of_a_disk_are_urls_too(tmp_path):
    storage = Storage((tmp_path / "there").as_uri())
    storage.create("a/b", b"x")
    assert fsspec.filesystem("file").cat_file(str(tmp_path / "there" / "a" / "b")) == b"x"
    assert [name for name, _, _ in storage.walk()] == ["a/b"]
