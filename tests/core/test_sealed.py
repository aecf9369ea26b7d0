"""Seals, frames and checks: a byte that changes is seen, and files without them are read as they are."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from oodream.core.errors import StoreError
from oodream.core.files import read_framed, read_json, sweep, write_framed, write_json
from oodream.core.folders import HASHES, changed_files, held, write_hashes
from oodream.core.sealed import (
    KEY,
    UNSEALED,
    damaged,
    file_hash,
    framed,
    is_whole,
    seal,
    seal_file,
    unframed,
    with_check,
    without_check,
)
from oodream.core.tensors import kept_tensors, load_state, load_tensors, save_state, save_tensors

CPU = torch.device("cpu")


def flips(data: bytes):
    """The data with one bit flipped, for every byte."""
    for at in range(len(data)):
        yield at, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def test_a_flip_of_any_byte_breaks_a_seal():
    """But for one in the mark itself: then there is no seal, and the content is as it was."""
    data = seal(b"before " + UNSEALED.encode() + b" behind")
    assert is_whole(data)
    start = data.index(b"oodream-seal:")
    seen = [at for at, other in flips(data) if not is_whole(other)]
    assert seen == [*range(start), *range(start + len(b"oodream-seal:"), len(data))]


def test_a_file_is_sealed_with_those_beside_it_again_and_again(tmp_path):
    file, beside = tmp_path / "a.xml", tmp_path / "a.bin"
    file.write_text(f"<net {UNSEALED}/>")
    beside.write_bytes(b"weights")
    for _ in range(2):
        seal_file(file, beside)
        assert is_whole(file, beside)
    beside.write_bytes(b"weighty")
    assert not is_whole(file, beside)
    (tmp_path / "b").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no place for a seal"):
        seal_file(tmp_path / "b")


def test_what_has_no_seal_is_whole(tmp_path):
    (tmp_path / "empty").touch()
    assert is_whole(tmp_path / "empty")
    assert is_whole(b"a file of an earlier version")
    assert unframed(b"neither has this a frame") == b"neither has this a frame"
    assert without_check({"row": 1}) == {"row": 1}


def test_frames(tmp_path):
    assert all_seen(framed(b"content"))
    write_framed(tmp_path / "a", b"content")
    assert read_framed(tmp_path / "a") == b"content"
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-1])
    with pytest.raises(StoreError, match="a is damaged"):
        read_framed(tmp_path / "a")


def all_seen(data: bytes) -> bool:
    """Whether no flip leaves another content than b"content" unnoticed; one in the mark gives the whole."""
    for at, other in flips(data):
        try:
            assert unframed(other) == other, at
        except ValueError:
            continue
        assert at < len(b"oodream-frame:")
    return True


def test_a_line_that_was_changed_is_seen():
    line = with_check({"row": 7, "keep": True})
    assert without_check(line) == {"row": 7, "keep": True}
    with pytest.raises(ValueError, match="changed since it was written; remove its 'check'"):
        without_check({**line, "row": 6})


def test_a_sealed_object_is_read_as_it_was(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"größe": 1.5}, sealed=True)
    assert read_json(file) == {"größe": 1.5}
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("1.5", "1.4"), encoding="utf-8")
    with pytest.raises(StoreError, match=r"a\.json is damaged \(its content is not what was written\)"):
        read_json(file)
    mine = {key: value for key, value in json.loads(text).items() if key != KEY}
    file.write_text(json.dumps(mine))  # by hand, without its seal
    assert read_json(file) == {"größe": 1.5}


def test_every_flip_in_tensors_is_seen_or_changes_nothing(tmp_path):
    file, tensors = tmp_path / "a.safetensors", {"x": torch.arange(6.0), "y": torch.ones(2, 2)}
    save_tensors(file, tensors)
    whole, unnoticed = file.read_bytes(), 0
    for _, data in flips(whole):
        file.write_bytes(data)
        try:
            again = load_tensors(file)
        except StoreError:
            continue
        unnoticed += 1
        assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert unnoticed <= len(b"oodream-seal:")
    for at in range(len(whole)):
        file.write_bytes(whole[:at])
        with pytest.raises(StoreError, match=r"a\.safetensors is damaged"):
            load_tensors(file)


def test_tensors_of_others_may_hold_anything(tmp_path):
    """A seal inside a tensor is that of another file."""
    inside = torch.frombuffer(bytearray(b"oodream-seal:" + b"0" * 40), dtype=torch.uint8)
    save_file({"content": inside}, tmp_path / "old.safetensors")
    assert torch.equal(load_tensors(tmp_path / "old.safetensors")["content"], inside)
    save_tensors(tmp_path / "new.safetensors", {"content": inside})
    assert torch.equal(load_file(tmp_path / "new.safetensors")["content"], inside)


def test_what_can_be_made_again_is_left_out_with_a_warning(tmp_path):
    file = tmp_path / "kept.safetensors"
    assert kept_tensors(file) == {}
    save_tensors(file, {"x": torch.zeros(3)})
    assert torch.equal(kept_tensors(file)["x"], torch.zeros(3))
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.warns(UserWarning, match=r"kept\.safetensors is damaged .* made again"):
        assert kept_tensors(file) == {}


def test_a_damaged_state_begins_a_training_anew(tmp_path):
    file = tmp_path / "resume.state"
    assert load_state(file, CPU) is None
    save_state(file, {"step": 3, "momentum": [torch.ones(4)]})
    state = load_state(file, CPU)
    assert state is not None
    assert state["step"] == 3
    whole = file.read_bytes()
    for data in (whole[:-1], whole[:200], b"", whole[:300] + bytes([whole[300] ^ 4]) + whole[301:]):
        file.write_bytes(data)
        with pytest.warns(UserWarning, match=r"resume\.state is damaged, and the training begins anew"):
            assert load_state(file, CPU) is None


def test_hashes_of_a_folder(tmp_path):
    (tmp_path / "unet").mkdir()
    for name in ("index.json", "unet/weights"):
        (tmp_path / name).write_text(name)
    assert changed_files(tmp_path) == []
    write_hashes(tmp_path)
    assert changed_files(tmp_path) == []
    (tmp_path / "unet" / "weights").write_text("others")
    (tmp_path / "index.json").unlink()
    assert changed_files(tmp_path) == [tmp_path / "index.json", tmp_path / "unet" / "weights"]
    (tmp_path / HASHES).write_text("{}")
    with pytest.raises(StoreError, match=r"hashes\.json is damaged"):
        changed_files(tmp_path)


def test_damaged_files_are_told_from_whole_ones(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    hashes = {tmp_path / "a": file_hash(tmp_path / "a"), tmp_path / "b": "0" * 32, tmp_path / "c": None}
    assert damaged(hashes.items()) == {tmp_path / "b", tmp_path / "c"}


def test_half_written_files_are_swept(tmp_path):
    kept = [".hidden", ".lock", "a.0badcafe", ".a.0badcaf", ".a.0BADCAFE"]
    for name in (*kept, ".a.png.0badcafe"):
        (tmp_path / name).touch()
    (tmp_path / ".stage.12345678" / "deep").mkdir(parents=True)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_held_folder_is_held_once(tmp_path):
    with held(tmp_path / "f", "busy"), pytest.raises(StoreError, match="busy"), held(tmp_path / "f", "busy"):
        pass
    with held(tmp_path / "f", "busy"):
        pass
