"""Copies are found, other images are not, and what copies mean depends on the sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from oodream.audit.duplicates import duplicates, fingerprint, nearest_duplicates
from oodream.data.images import from_array
from tests.helpers.clouds import clouds, compressed, images, resized, sets, shifted

COPIES = {
    "equal": lambda p: p,
    "JPEG": lambda p: compressed(p, 75),
    "smaller": lambda p: resized(p, 0.6),
    "to the right": lambda p: shifted(p, -1, 0),
    "down and left": lambda p: shifted(p, 1, 1),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.1),
}


@pytest.mark.parametrize("size", [32, 64, 100])
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_are_found_and_others_are_not(copy, size):
    train, strangers = clouds(60, 0, size), clouds(30, 1, size)
    row_N, apart_N = nearest_duplicates(
        fingerprint(images(train)), fingerprint(images([copy(p) for p in train[20:40]] + strangers))
    )
    assert row_N[:20].tolist() == [*range(20, 40)]
    assert row_N[20:].tolist() == [-1] * 30
    assert ((apart_N[:20] == 0) == (copy is COPIES["equal"])).all()


def test_other_pictures_are_no_copies():
    picture = clouds(1, 0)[0]
    others = {
        "mirrored": picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "twice as contrasty": Image.fromarray(np.asarray(picture) // 2),
        "in other colours": Image.fromarray(np.asarray(picture)[:, :, [1, 2, 0]]),
        "moved by a quarter": Image.fromarray(np.roll(np.asarray(picture), 8, axis=1)),
    }
    row_N, _ = nearest_duplicates(fingerprint(images([picture] * 2)), fingerprint(images([*others.values()])))
    assert dict(zip(others, row_N.tolist(), strict=True)) == dict.fromkeys(others, -1)


def test_equal_pictures_are_those_that_a_dictionary_finds():
    g = torch.Generator().manual_seed(0)
    plain = 255 * torch.randint(0, 2, (400, 3, 1, 1), generator=g).expand(-1, -1, 8, 8)
    x = torch.cat([plain, torch.randint(0, 3, (400, 3, 8, 8), generator=g)]).byte()
    first: dict[bytes, int] = {}
    expected = []
    for i, row in enumerate(x):
        earlier = first.setdefault(row.numpy().tobytes(), i)
        expected.append(earlier if earlier < i else -1)
    row_N, _ = nearest_duplicates(*[fingerprint(from_array("x", x, torch.zeros(800), ()))] * 2)
    assert row_N.tolist() == expected
    assert sum(row >= 0 for row in expected) == 392


def test_plain_pictures_are_copies_only_when_they_are_equal():
    plain = [Image.new("RGB", (32, 32), (v, v, v)) for v in range(0, 256, 5)]
    prints = fingerprint(images(plain))
    assert (nearest_duplicates(prints, prints)[0] == -1).all()
    row_N, _ = nearest_duplicates(
        prints, fingerprint(images([*plain[3:5], Image.new("RGB", (32, 32), (254, 255, 255))]))
    )
    assert row_N.tolist() == [3, 4, -1]


def test_what_copies_mean_depends_on_the_sets():
    train, test, odd, drawn = (clouds(50, seed) for seed in range(4))
    test[0], odd[0], odd[1], odd[2] = train[0], train[1], test[1], drawn[5]
    drawn[0] = drawn[1] = train[2]
    audited = sets(
        train=("train", images(train)), test=("test", images(test)), odd=("near", images(odd)),
        drawn=("outliers", images(drawn)), again=("control", images([compressed(p, 90) for p in test])),
        other=("far", images([odd[0], *clouds(150, 9)])),
    )  # fmt: skip
    findings = {f.sets: f for f in duplicates(audited) if f.kind == "duplicates"}
    counts = {names: (f.count, f.severity) for names, f in findings.items() if f.count}
    assert counts == {
        ("train", "test"): (1, "problem"), ("train", "odd"): (1, "problem"), ("test", "odd"): (1, "problem"),
        ("drawn", "odd"): (1, "problem"), ("train", "drawn"): (2, "problem"), ("drawn",): (1, "warning"),
        ("train", "other"): (1, "warning"),
    }  # fmt: skip
    assert findings["train", "odd"].examples[0] == {
        "sets": ["train", "odd"], "rows": [1, 0], "files": ["set[1]", "set[0]"], "apart": 0,
    }  # fmt: skip
    assert "learns them as known" in findings["train", "odd"].message
    assert (
        "1 of 50 images of test (2.0\u00a0%) show the same as one of train, all to the last bit"
        in findings["train", "test"].message
    )


def test_shifted_images_are_not_those_of_training_and_may_be_made_of_test_images():
    train, test, odd, drawn, night = (clouds(30, seed) for seed in range(5))
    night[:5] = [train[0], train[1], test[0], odd[0], drawn[0]]
    audited = sets(
        night=("shift", images(night)), dusk=("shift", images(night)), train=("train", images(train)),
        test=("test", images(test)), odd=("far", images(odd)), drawn=("outliers", images(drawn)),
    )  # fmt: skip
    findings = {f.sets: f for f in duplicates(audited) if f.kind == "duplicates" and f.count}
    assert {names: (f.count, f.severity) for names, f in findings.items()} == {
        pair: (count, "problem")
        for name in ("night", "dusk")
        for pair, count in ((("train", name), 2), (("drawn", name), 1), ((name, "odd"), 1))
    }
    assert "Accuracy under shift on them is memory." in findings["train", "night"].message


def test_equal_pictures_with_different_labels_are_found():
    train = clouds(50, 0)
    train[10], train[11], train[20] = train[0], train[0], train[1]
    labels = [0] * 50
    labels[10], labels[30] = 1, 1
    known = images(train, "train", labels, ("cat", "dog"))
    audited = sets(train=("train", known), test=("test", images(clouds(5, 1))))
    (finding,) = (f for f in duplicates(audited) if f.kind == "labels")
    assert (finding.count, finding.share, finding.severity) == (3, 0.06, "problem")
    assert {*finding.examples[0]["labels"]} == {"cat", "dog"}
    assert {*finding.examples[0]["rows"]} <= {0, 10, 11}
