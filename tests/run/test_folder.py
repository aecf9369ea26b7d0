"""Files that are whole or absent, stamps, locks, and disks that refuse."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
import torch

from oodream.core import files as store
from oodream.core.errors import StoreError
from oodream.core.files import atomic_folder, load_tensors, read_json, save_tensors, write_bytes
from oodream.run.folder import RunDir, StageChanged, differing


def test_write_is_whole_or_nothing(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a" / "x", b"old")

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a" / "x", b"new")
    assert (tmp_path / "a" / "x").read_bytes() == b"old"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x"]


def test_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        write_bytes(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_really_full(tmp_path):
    with (
        pytest.raises(StoreError, match="disk is full"),
        store.explained(tmp_path),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_unwritable_folder_says_so(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store.Path, "open", refuses)
    with pytest.raises(StoreError, match=r"cannot be written.*another folder"):
        write_bytes(tmp_path / "x", b"data")


def test_a_file_where_the_run_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises((StoreError, OSError)), RunDir(tmp_path / "run").locked():
        pass


def test_atomic_folder_replaces_or_vanishes(tmp_path):
    with atomic_folder(tmp_path / "f") as fresh:
        (fresh / "one").write_text("1")

    def fails():
        with atomic_folder(tmp_path / "f") as fresh:
            (fresh / "two").write_text("2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["one"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_tensors_and_damage(tmp_path):
    save_tensors(tmp_path / "t.safetensors", {"a": torch.arange(3)})
    assert torch.equal(load_tensors(tmp_path / "t.safetensors")["a"], torch.arange(3))
    (tmp_path / "t.safetensors").write_bytes(b"\x08\x00")
    with pytest.raises(StoreError, match="damaged"):
        load_tensors(tmp_path / "t.safetensors")
    (tmp_path / "j.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        read_json(tmp_path / "j.json")


def test_stamps(tmp_path):
    run = RunDir(tmp_path / "run")
    inputs = {"k": 3, "after": {"align": "abc"}}
    assert not run.is_done("sample", inputs)
    run.begin("sample", inputs)
    assert not run.is_done("sample", inputs)
    with pytest.raises(StageChanged, match=r"k: 3 -> 4"):
        run.is_done("sample", {**inputs, "k": 4})
    run.finish("sample", inputs, 1.23, {"outliers": 7})
    assert run.is_done("sample", inputs)
    assert run.stamp("sample")["summary"] == {"outliers": 7}
    with pytest.raises(StageChanged, match=r"--redo changed to make sample"):
        run.is_done("sample", {"k": 3, "after": {"align": "xyz"}})
    run.remove("sample")
    assert not run.is_done("sample", {"k": 4})


def test_differing_names_the_path():
    assert differing({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: 2 -> 3"]
    assert differing({"a": 1}, {"a": 1}) == []
    assert differing({}, {"a": 1}) == ["a: None -> 1"]


def test_second_process_is_refused_and_a_killed_one_holds_nothing(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from oodream.run.folder import RunDir\n"
        "with RunDir(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="Another oodream process"), RunDir(tmp_path / "run").locked():
            pass
    finally:
        holder.kill()
        holder.wait()
    with RunDir(tmp_path / "run").locked():
        pass
