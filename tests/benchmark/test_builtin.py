from __future__ import annotations

import pytest
import torch

from oodream.benchmark.builtin import BUILT_IN
from oodream.benchmark.protocol import load_protocol
from oodream.data.builtin import FASHION_ID, fashion

COUNTS = {s.builtin: s.count for s in load_protocol("embedded").sets}


@pytest.mark.parametrize("name", list(BUILT_IN))
def test_sets_have_the_width_and_the_number_that_are_asked_for(name: str) -> None:
    images = BUILT_IN[name](8, 40)
    assert (len(images), images.size) == (40, 8)
    assert images.batch([0, 39]).shape == (2, 3, 8, 8)


def test_the_embedded_validation_images_are_no_test_images() -> None:
    """Together they are the whole test split, each image once."""
    val, test = (set(BUILT_IN[name](8, COUNTS[name]).files) for name in ("fashion-val", "fashion-test"))
    assert (len(val), len(test)) == (400, 1600)
    assert not val & test
    assert val | test == set(fashion("test", FASHION_ID, size=8).files)


def test_the_embedded_unknown_validation_images_are_made_from_validation_images() -> None:
    val = BUILT_IN["fashion-val"](8, 400)
    negatives = BUILT_IN["inverted"](8, 400)
    assert torch.equal(255 - negatives.batch(range(400)), val.batch(range(400)))


def test_pseudo_ood_without_a_number_is_made_of_all_images() -> None:
    whole = BUILT_IN["inverted"](8, 0)
    assert len(whole) == len(whole.batch(range(len(whole)))) == len(fashion("test", FASHION_ID, size=8))


def test_every_embedded_test_image_is_corrupted_once_in_every_way() -> None:
    test, shifted = (BUILT_IN[name](32, COUNTS[name]) for name in ("fashion-test", "fashion-corrupted"))
    assert len(shifted) == len(test)
    assert torch.equal(shifted.labels.bincount(), test.labels.bincount())
    plain = {image.numpy().tobytes() for image in test.batch(range(len(test)))}
    changed = [image.numpy().tobytes() not in plain for image in shifted.batch(range(len(shifted)))]
    assert sum(changed) > 0.99 * len(changed)
    whole = BUILT_IN["fashion-corrupted"](8, 27)
    assert sorted(whole.labels.tolist()) == sorted(BUILT_IN["fashion-test"](8, 27).labels.tolist())
