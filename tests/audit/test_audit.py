"""The audit as a whole: what it refuses, what it says of the embedded sets, and that it repeats itself."""

from __future__ import annotations

import json

import pytest
import torch

from oodream.audit.audit import audit
from oodream.audit.finding import SEVERITIES, Audit
from oodream.core.errors import DataError
from oodream.data.builtin import FAR_SETS, FASHION_ID, FASHION_NEAR, fashion
from oodream.data.images import ImageSet
from tests.helpers.clouds import clouds, images, sets


def test_bad_sets_are_refused():
    good = images(clouds(3, 0))
    with pytest.raises(DataError, match="no images in odd"):
        audit(sets(test=("test", good), odd=("far", good.subset(torch.arange(0)))), ())
    with pytest.raises(ValueError, match="group 'test'"):
        audit(sets(train=("train", good)), ())
    with pytest.raises(ValueError, match="not 'id'"):
        audit(sets(test=("test", good), odd=("id", good)), ())
    with pytest.raises(DataError, match="different sizes"):
        audit(sets(test=("test", good), odd=("far", images(clouds(3, 0, 64)))), ())
    with pytest.raises(ValueError, match="the name 'odd'"):
        audit([*sets(test=("test", good), odd=("far", good)), *sets(odd=("near", good))], ())


@pytest.fixture(scope="module")
def embedded() -> Audit:
    known = {part: fashion(part, FASHION_ID) for part in ("train", "test")}
    far = {name: make(32, 100, 0) for name, (make, _) in FAR_SETS.items()}
    audited = [
        *(ImageSet(name=f"ID/{part}", group=part, images=x) for part, x in known.items()),
        ImageSet(name="near", group="near", images=fashion("test", FASHION_NEAR).as_ood("near")),
        *(ImageSet(name=name, group="far", images=x) for name, x in far.items()),
    ]
    return audit(audited, FASHION_ID)


def test_what_the_embedded_sets_are_guilty_of(embedded):
    assert embedded["problem"] == []
    shared = {f.sets: f.count for f in embedded.findings if f.kind == "duplicates" and len(f.sets) == 2}
    assert shared == {("ID/train", "ID/test"): 3}
    pixels = {f.sets[-1]: f.severity for f in embedded.findings if f.kind == "pixels"}
    assert pixels == {
        **dict.fromkeys(("digits", "photos", "textures", "noise"), "warning"),
        **dict.fromkeys(("near", "letters"), "fine"),
    }
    assert not [f for f in embedded["warning"] if f.kind in ("names", "labels", "files")]


def test_an_audit_survives_json_and_is_sorted(embedded):
    assert Audit.from_json(json.loads(json.dumps(embedded.to_json()))) == embedded
    places = [SEVERITIES.index(f.severity) for f in embedded.findings]
    assert places == sorted(places)
    assert {1, 2} <= {*places}
