"""The short form: each reader with valid inputs, those that failed once, and some that are nearly right."""

from __future__ import annotations

import random

import pytest

from .target import TARGETS, kept, load
from .verdict import fault_of

load()


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_refused_in_words(name, tmp_path):
    """The inputs are the same each time; `tests.fuzz.long` makes others."""
    target, rng = TARGETS[name], random.Random(0)
    seeds, read = target.prepare(tmp_path)
    inputs = [*seeds, *kept(name), b""]
    inputs += [target.mutate(rng.choice(seeds), rng) for _ in range(target.short)]
    faults = {fault: data for data in inputs if (fault := fault_of(read, data))}
    assert not faults, {fault: data[:300] for fault, data in faults.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_read(name, tmp_path):
    """Else nothing that is nearly right would reach the reader's insides."""
    seeds, read = TARGETS[name].prepare(tmp_path)
    read(seeds[0])
