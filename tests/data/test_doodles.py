"""The embedded drawings of "Quick, Draw!" and their split into known, near and the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oodream.core.files import ASSETS
from oodream.data.doodles import (
    DOODLES_KNOWN,
    DOODLES_NAMES,
    DOODLES_NEAR,
    DOODLES_WORLD,
    NEVER_WORDS,
    doodles,
)


def test_the_split_takes_every_name_once():
    assert (len(DOODLES_KNOWN), len(DOODLES_NEAR), len(DOODLES_WORLD)) == (42, 71, 201)
    parts = [*DOODLES_KNOWN, *DOODLES_NEAR, *DOODLES_WORLD]
    assert sorted(parts) == sorted(DOODLES_NAMES)
    assert len(set(parts)) == len(parts) == 314
    assert list(DOODLES_NAMES) == sorted(DOODLES_NAMES)


def test_no_relative_is_known_or_of_the_world():
    assert not {*DOODLES_NEAR} & {*DOODLES_KNOWN, *DOODLES_WORLD}
    assert {*DOODLES_NEAR} < {*NEVER_WORDS}
    assert not {*NEVER_WORDS} & {*DOODLES_WORLD}, "no synonym of a relative is a name of the world"
    assert not {*NEVER_WORDS} & {*DOODLES_KNOWN}


def test_labels_follow_the_asked_order():
    images = doodles(("cat", "airplane", "The Eiffel Tower"))
    assert images.classes == ("cat", "airplane", "The Eiffel Tower")
    assert images.labels.bincount().tolist() == [100] * 3
    turned = doodles(("The Eiffel Tower", "cat", "airplane"))
    for name in images.classes:
        a, b = (x.subset(x.labels == x.classes.index(name)) for x in (images, turned))
        assert torch.equal(a.batch(range(100)), b.batch(range(100))), name
    with pytest.raises(ValueError, match="not in tuple"):
        doodles(("unheard of",))


def test_splits_share_no_drawing():
    names = ("cat", "house")
    train, test, both = (doodles(names, split=split) for split in ("train", "test", ""))
    assert train.labels.bincount().tolist() == [80, 80]
    assert test.labels.bincount().tolist() == [20, 20]
    assert (train.name, test.name, both.name) == ("doodles-train", "doodles-test", "doodles-all")
    seen = {row.tobytes() for row in train.batch(range(len(train))).numpy()}
    held_out = {row.tobytes() for row in test.batch(range(len(test))).numpy()}
    every = {row.tobytes() for row in both.batch(range(len(both))).numpy()}
    assert len(seen) == 160
    assert not seen & held_out
    assert seen | held_out == every


def test_no_drawing_stands_under_two_names():
    """A known drawing in the world would teach a network to flag what it should know."""
    images = doodles(DOODLES_NAMES, size=28)
    rows = [row.tobytes() for row in images.batch(range(len(images)))[:, 0].numpy()]
    named = set(zip(images.labels.tolist(), rows, strict=True))
    assert len(named) == len(set(rows)) == len(rows) - 1, "two straight lines are equal"


def test_drawings_are_light_lines_on_black_centred_in_their_cells():
    images = doodles(DOODLES_NAMES, size=28)
    x = images.batch(range(len(images)))
    assert x.dtype == torch.uint8
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])
    gray = x[:, 0].numpy()
    assert len(np.unique(gray)) == 16, "tones"
    assert 0 < (gray > 0).mean() < 0.35
    for axis in (1, 2):
        ink = gray.any(axis)
        before, behind = ink.argmax(1), ink[:, ::-1].argmax(1)
        assert ink.any(1).all(), "every drawing shows something"
        assert abs(before - behind).max() <= 1


def test_drawings_are_the_same_every_time_and_at_every_size():
    names = ("cat", "dog")
    assert doodles(names).fingerprint() == doodles(names).fingerprint()
    assert doodles(names).size == 32
    assert doodles(names, size=64).batch([0]).shape == (1, 3, 64, 64)


def test_the_folder_is_small_and_says_whose_drawings_they_are():
    folder = ASSETS / "doodles"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 6_000_000
    assert "Google" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Attribution 4.0 International" in (folder / "LICENSE").read_text(encoding="utf-8")
