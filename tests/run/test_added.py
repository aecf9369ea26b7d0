"""Pictures that a person adds: kept with what they were made from, removed again, and known by a hash."""

from __future__ import annotations

import io
import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.core.errors import StoreError
from oodream.run.added import add_picture, read_added, remove_picture


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def facts(name: str = "coat", vector: tuple[float, ...] = (1.0, 0.0)) -> dict:
    return {
        "class": name, "prompt": f"a {name}", "way": f"from the class “{name}”", "vector": list(vector),
        "words": ["hat"], "cosine_to_class": 0.5, "pipeline": "0" * 16, "recipe": {"seed": 3},
    }  # fmt: skip


def test_pictures_are_kept_in_order_with_what_they_were_made_from(tmp_path):
    assert len(read_added(tmp_path / "none")) == 0
    first = add_picture(tmp_path, png(10), facts("shoe", (3.0, 4.0)))
    second = add_picture(tmp_path, png(200), facts("coat"))
    assert (first["number"], second["number"]) == (1, 2)
    added = read_added(tmp_path)
    assert added.lines == [first, second]
    assert torch.allclose(added.vectors, torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    images = added.read(("coat", "shoe"), 8)
    assert images.labels.tolist() == [1, 0]
    assert images.batch([0, 1])[:, 0, 0, 0].tolist() == [10, 200]


def test_the_same_picture_twice_is_one(tmp_path):
    assert add_picture(tmp_path, png(10), facts()) == add_picture(tmp_path, png(10), facts())
    assert len(read_added(tmp_path)) == 1


def test_several_writers_lose_nothing(tmp_path):
    threads = [
        threading.Thread(target=add_picture, args=(tmp_path, png(value), facts())) for value in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    added = read_added(tmp_path)
    assert [line["number"] for line in added.lines] == list(range(1, 13))
    assert len(added.read(("coat",), 8)) == 12


def test_a_removed_picture_leaves_no_trace(tmp_path):
    add_picture(tmp_path, png(10), facts())
    one = read_added(tmp_path).fingerprint
    line = add_picture(tmp_path, png(20), facts())
    assert read_added(tmp_path).fingerprint != one
    assert remove_picture(tmp_path, 2) == line
    assert read_added(tmp_path).fingerprint == one
    assert not (tmp_path / line["file_name"]).exists()
    with pytest.raises(ValueError, match="No picture has the number 2"):
        remove_picture(tmp_path, 2)


@pytest.mark.parametrize("change", [{"class": "shoe"}, {"vector": [0.0, 1.0]}])
def test_the_fingerprint_is_of_what_training_reads(tmp_path, change):
    add_picture(tmp_path / "a", png(10), facts())
    add_picture(tmp_path / "b", png(10), facts() | change)
    add_picture(tmp_path / "c", png(10), facts() | {"words": ["cat"], "way": "otherwise"})
    prints = [read_added(tmp_path / name).fingerprint for name in "abc"]
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_a_changed_file_is_named(tmp_path):
    add_picture(tmp_path, png(10), facts())
    (tmp_path / "000001.png").write_bytes(png(11))
    with pytest.raises(StoreError, match=r"000001\.png is missing or damaged in"):
        read_added(tmp_path).read(("coat",), 8)


def test_changed_files_are_counted_and_some_are_named(tmp_path):
    for value in range(13):
        add_picture(tmp_path, png(value), facts())
    for file in tmp_path.glob("*.png"):
        if file.name != "000005.png":
            file.unlink()
    with pytest.raises(
        StoreError,
        match=r"^12 added pictures \(000001\.png, .*000011\.png, … and 2 more\) are missing or damaged in",
    ):
        read_added(tmp_path).read(("coat",), 8)


def test_a_class_that_the_run_does_not_have_is_named(tmp_path):
    add_picture(tmp_path, png(10), facts("boat"))
    with pytest.raises(StoreError, match=r"Picture 1 .* class 'boat'"):
        read_added(tmp_path).read(("coat",), 8)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"number": 1}',
        json.dumps(facts() | {"number": 1, "hash": "0", "file_name": "../../x.png"}),
    ],
)
def test_a_damaged_list_is_named_and_no_other_file_is_read(tmp_path, line):
    (tmp_path / "added.jsonl").write_text(f"{line}\n")
    with pytest.raises(StoreError, match=r"added\.jsonl.* damaged"):
        read_added(tmp_path)
