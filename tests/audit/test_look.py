"""The look tells how pictures were made, and little of what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.audit.look import look_control, look_statistics, matched
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import Images, from_array
from tests.helpers.clouds import clouds, compressed, images, photographs, resized, sets


def share(known: Images, test: Images, outliers: Images) -> float:
    (finding,) = look_control(
        sets(train=("train", known), test=("test", test), imagined=("outliers", outliers)), 0
    )
    return finding.share


@pytest.mark.parametrize(
    "make",
    [
        lambda p: compressed(p, 15),
        lambda p: resized(p, 0.6),
        lambda p: p.convert("L").convert("RGB"),
        lambda p: Image.fromarray((np.asarray(p) * 0.6 + 60).astype(np.uint8)),
        lambda p: Image.fromarray(np.asarray(p).clip(40, 255)),
    ],
    ids=["compressed", "resized", "gray", "paler", "black cut off"],
)
def test_what_was_made_otherwise_looks_otherwise(make):
    known, test = images(photographs(150, 0)), images(photographs(150, 1))
    assert share(known, test, images([make(p) for p in photographs(150, 2)])) > 0.8
    assert share(known, test, images(photographs(150, 3))) < 0.6


def garments(split: str, n: int, seed: int) -> Images:
    found = fashion(split, FASHION_ID, size=32)
    rows = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))[:n]
    return found.subset(rows)


def blurred(data: Images) -> Images:
    x = torch.nn.functional.avg_pool2d(data.batch(range(len(data))).float(), 3, 1, 1).round().byte()
    return from_array("blurred", x, data.labels, data.classes)


def test_garments_look_like_garments_and_blurred_ones_do_not():
    """The control of the control, on real data: other training images, then the same ones blurred."""
    known, test, others = garments("train", 600, 0), garments("test", 400, 0), garments("train", 400, 1)
    first, second = look_control(
        sets(
            train=("train", known), test=("test", test), real=("outliers", others),
            blurred=("outliers", blurred(others)),
        ),
        0,
    )  # fmt: skip
    assert (first.kind, first.severity, first.sets) == ("look", "fine", ("train", "real"))
    low, high = first.interval
    assert low <= first.share <= high
    assert low < 0.53
    assert first.share < 0.57
    assert second.share > 0.95
    assert "of the same classes at AUROC" in second.message
    assert "and test at 5" in second.message
    statistics = {e["statistic"]: e["auroc"] for e in second.examples}
    assert statistics["together"] == pytest.approx(second.share, abs=1e-4)
    assert "colour" not in statistics, "garments are gray, and so outliers are shown"


def test_classes_are_matched():
    """Outliers around one class are compared with that class alone, so classes that differ betray nothing."""
    dark = [Image.fromarray((np.asarray(p) * 0.4).astype(np.uint8)) for p in photographs(120, 0)]
    light = photographs(120, 1)
    known = images(dark[:60] + light[:60], labels=[0] * 60 + [1] * 60, classes=("dark", "light"))
    outliers = images(light[60:], labels=[1] * 60)
    assert share(known, known, outliers) < 0.62
    no_class = images(light[60:], labels=[-1] * 60)
    assert share(known, known, no_class) > 0.65


def test_matched_rows_have_the_same_classes():
    known, other = torch.tensor([0] * 5 + [1] * 3 + [2] * 4), torch.tensor([2, 2, 0, 0, 0, 0, 0, 0, 0, 3])
    rows = matched(known, other, 0)
    assert [labels[r].bincount().tolist() for labels, r in zip((known, other), rows, strict=True)] == [
        [5, 0, 2],
        [5, 0, 2],
    ]
    assert all(len(set(r.tolist())) == 7 for r in rows)
    assert [r.tolist() for r in matched(known, other, 0)] == [r.tolist() for r in rows]
    assert [len(r) for r in matched(known, torch.full((9,), -1), 0)] == [9, 9]
    assert [len(r) for r in matched(known, torch.tensor([7]), 0)] == [0, 0]


def test_grain_is_how_much_a_pixel_differs_from_its_neighbours():
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    plain, slope = torch.full((16, 16), 90), torch.arange(16).expand(16, 16) * 10
    x = torch.stack([checkers, plain, slope]).byte()[:, None].expand(3, 3, 16, 16)
    facts = look_statistics(x)
    assert facts["grain q50"] == pytest.approx(np.log(np.array([200, 0, 0]) + 0.1), abs=1e-4)
    assert facts["flatness"].tolist() == [0, 1, 1]
    assert facts["brightness"] == pytest.approx(np.array([100, 90, 75]) / 255)
    assert facts["contrast"][1] == 0


def test_too_few_outliers_are_left_out():
    known, few = images(clouds(40, 0)), images(clouds(10, 1))
    assert not [*look_control(sets(train=("train", known), test=("test", known), few=("outliers", few)), 0)]
    assert not [*look_control(sets(train=("train", known), test=("test", known), odd=("near", known)), 0)]
    (finding,) = look_control(
        sets(train=("train", known), test=("test", few), more=("outliers", images(clouds(40, 2)))), 0
    )
    assert "test at" not in finding.message
