"""Known classes are found in names of sets, folders and files as whole words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from oodream.audit.names import named_classes
from oodream.data.images import Images, from_array
from tests.helpers.clouds import sets


def named(*files: str) -> Images:
    """A set of black images with these files."""
    black = torch.zeros(len(files), 3, 8, 8, dtype=torch.uint8)
    return replace(from_array("odd", black, torch.full((len(files),), -1), ()), files=files)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("Coats/1.png", {"coat"}),
        ("red_coat/1.png", {"coat"}),
        ("all/COAT-17.jpg", {"coat"}),
        ("coatings/1.png", set()),
        ("dresses/1.png", {"dress"}),
        ("address/1.png", set()),
        ("horses/a.png", {"horse"}),
        ("buses/a.png", {"bus"}),
        ("flies/a.png", {"fly"}),
        ("polo-shirts/a.png", {"polo shirt"}),
        ("PoloShirt/a.png", {"polo shirt"}),
        ("shirt/a.png", {"shirt"}),
        ("train/a.png", set()),
        ("steam-train/a.png", {"train"}),
        ("kite bird/a.png", {"kite"}),
        ("n01440764/a.png", {"tench"}),
        ("tinca/a.png", {"tench"}),
        ("b/3.png", set()),
        ("Fliegen/a.png", set()),
    ],
)
def test_known_classes_are_found_by_name(file, expected):
    classes = (
        "coat",
        "dress",
        "horse",
        "bus",
        "fly",
        "polo shirt",
        "shirt",
        "train",
        "kite",
        "tench, tinca",
        "b",
        "3",
    )
    odd = named(f"/data/coat/odd/{file}", "/data/coat/odd/zzz/0.png")
    words = {"kite": ["kite bird"], "tench, tinca": ["n01440764"]}
    (finding,) = named_classes(sets(odd=("near", odd)), classes, words)
    assert {hit["class"].partition(",")[0] for hit in finding.examples} == expected
    assert finding.count == bool(expected)
    assert finding.severity == ("warning" if expected else "fine")
    (whole,) = named_classes(sets(coats=("far", odd)), classes, words)
    assert whole.count == 2


def test_examples_are_in_a_fixed_order():
    """The most frequent class first, and of equally frequent ones the first in the alphabet."""
    classes = ("wasp", "ant", "bee", "fly")
    insects = named("/d/ant_bee_wasp/0.png", "/d/fly/1.png", "/d/fly/2.png")
    (finding,) = named_classes(sets(odd=("far", insects)), classes, {})
    assert [hit["class"] for hit in finding.examples] == ["fly", "ant", "bee", "wasp"]


def test_sets_that_name_no_class_are_one_finding():
    audited = sets(
        a=("near", named("/d/x/0.png")), b=("far", named("/d/y/0.png")), c=("test", named("/d/ant/0.png"))
    )
    (finding,) = named_classes(audited, ("ant",), {})
    assert (finding.sets, finding.severity) == (("a", "b"), "fine")
