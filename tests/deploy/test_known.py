"""Parts of known images, and what a network's outputs mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from oodream.core.errors import DataError
from oodream.data.listing import pixel_listing
from oodream.deploy.known import LEAST, output_names, outputs_of, split_known
from oodream.runtime.calibration import least


def listing(n: int, classes: int = 4, name: str = "photos"):
    pixels = np.zeros((n, 2, 2, 3), dtype=np.uint8)
    return pixel_listing(name, pixels, [i % classes for i in range(n)], [f"c{i}" for i in range(classes)])


def split(train, test=None, alpha=0.05, confidence=0.95, **more):
    return split_known(train, test, alpha=alpha, confidence=confidence, seed=more.pop("seed", 0), **more)


def rows(part) -> set[int]:
    return {*part.rows}


def test_parts_share_no_image_and_leave_none_out():
    parts = split(listing(1000))
    assert [len(rows(part)) for part in (parts.fit, parts.choose, parts.held_out)] == [400, 200, 400]
    assert rows(parts.fit) | rows(parts.choose) | rows(parts.held_out) == {*range(1000)}
    assert str(parts) == "400 to fit to, 200 to choose on, 400 held out for the threshold"


def test_with_a_test_split_detectors_are_fitted_to_the_training_images_alone():
    parts = split(listing(300, name="train"), listing(200, name="test"))
    assert rows(parts.fit) == {*range(300)}
    assert parts.fit.name.startswith("train")
    assert (len(parts.choose.rows), len(parts.held_out.rows)) == (60, 140)
    assert rows(parts.choose) | rows(parts.held_out) == {*range(200)}


def test_held_out_images_are_never_fewer_than_the_guarantee_needs():
    needed = least(0.05, 0.95)
    parts = split(listing(needed + 2 * LEAST))
    assert [len(p.rows) for p in (parts.fit, parts.choose, parts.held_out)] == [LEAST, LEAST, needed]
    parts = split(listing(5000), held_out=10, choose=30, fit=50)
    assert [len(p.rows) for p in (parts.fit, parts.choose, parts.held_out)] == [50, 30, needed]


def test_too_few_images_are_named_with_the_number_that_it_takes():
    message = r"has 98 images.*59 held-out images.*40 others: 99 in all.*--confidence 0.*\(19 held-out"
    with pytest.raises(DataError, match=message):
        split(listing(98))
    with pytest.raises(DataError, match=r"5\.00% of known images are flagged, on average, takes 19 held-out"):
        split(listing(50), confidence=None)
    with pytest.raises(DataError, match="20 to choose the detector on: 79 in all"):
        split(listing(300), listing(78))
    with pytest.raises(DataError, match="has 19 images, and detectors learn from 20 at least"):
        split(listing(19), listing(500))


def test_what_is_held_out_is_drawn_by_the_seed_and_from_all_alike():
    assert rows(split(listing(400)).held_out) == rows(split(listing(400)).held_out)
    assert rows(split(listing(400)).held_out) != rows(split(listing(400), seed=1).held_out)
    drawn = torch.zeros(100)
    for seed in range(300):
        part = split(listing(100), seed=seed).held_out
        drawn[list(part.rows)] += 1
    expected = 300 * 59 / 100
    assert ((drawn - expected).abs() < 5 * (300 * 0.59 * 0.41) ** 0.5).all()


def test_a_class_may_be_missing_from_a_part():
    parts = split(replace(listing(200), least=2))
    assert {part.least for part in (parts.fit, parts.choose, parts.held_out)} == {0}


# Outputs

NAMES = [("tench", "Tinca tinca", "n01440764"), ("great white shark", "n01484850"), ("cock", "n01514668")]


@pytest.mark.parametrize(
    ("classes", "rows_C"),
    [
        (("cock", "tench", "great white shark"), [2, 0, 1]),
        (("n01484850", "N01440764"), [1, 0]),
        (("Great_White  Shark", "Tinca tinca"), [1, 0]),
    ],
)
def test_outputs_are_found_by_any_of_their_names(classes, rows_C):
    found = outputs_of(classes, NAMES, 3, "photos")
    assert found.rows_C.tolist() == rows_C
    assert found.remark == ""


def test_a_class_that_its_list_renames_is_found_by_its_folder():
    found = outputs_of(
        ("flower", "b"), [("b",), ("bee",), ("rose",)], 3, "photos", {"flower": ["rose"], "b": ["bee"]}
    )
    assert found.rows_C.tolist() == [2, 0]


def test_without_names_the_order_of_the_folders_is_supposed_and_said():
    for names in ([], NAMES):
        found = outputs_of(("a", "b", "c"), names, 3, "photos")
        assert found.rows_C.tolist() == [0, 1, 2]
        assert "supposed to be in the order of the class folders (a, b, c)" in found.remark


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (("a", "b"), [], r"photos has 2 classes, and the network 3 outputs\..*--labels"),
        (("a", "b"), NAMES, r"3 outputs of other names\..*--labels"),
        (("tench", "hen"), NAMES, "1 of 2 classes are none that this network knows by name: hen"),
        (("tench", "n01440764"), NAMES, "tench, n01440764 are one class to this network"),
        (("crane", "cock"), [("crane", "x"), ("crane", "y"), ("cock",)], "by name: crane"),
    ],
)
def test_classes_that_are_not_the_networks_are_named(classes, names, message):
    with pytest.raises(DataError, match=message):
        outputs_of(classes, names, 3, "photos")


def test_every_output_has_a_name_of_its_own():
    assert output_names([], 2) == ("class 0", "class 1")
    assert output_names([("crane", "n1"), ("cock",), ("crane",)], 3) == ("crane (n1)", "cock", "crane (2)")
    with pytest.raises(DataError, match=r"a class is called 'Unknown'.*--labels"):
        output_names([("Unknown",), ("cock",)], 2)
