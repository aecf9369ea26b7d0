"""Faults of extensions in words: which one, what it raised, and where in a plug-in."""

from __future__ import annotations

import pytest
import torch

from oodream.core.errors import DataError, StoreError
from oodream.core.faults import BrokenRule, PluginFault, blamed, place_in, require
from oodream.core.memory import MemoryShort
from oodream.core.registry import get


class Plugin:
    def work(self, error: BaseException) -> None:
        raise error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("gone"), r"^The thing 'x': KeyError: 'gone' \(.*test_faults\.py, line 16\)\.$"),
        (ValueError("Two lines.\nOf text."), r"^The thing 'x': ValueError: Two lines \(.*, line 16\)\.$"),
        (RuntimeError(), r"^The thing 'x': RuntimeError \(.*, line 16\)\.$"),
    ],
)
def test_what_a_plug_in_raises_has_its_name_and_a_place(error, sentence):
    with pytest.raises(PluginFault, match=sentence) as raised, blamed("The thing 'x'", Plugin()):
        Plugin().work(error)
    assert raised.value.__cause__ is error


def test_what_a_plug_in_gives_has_its_name():
    blue = r"^The thing 'x': It is blue\.$"
    with pytest.raises(PluginFault, match=blue), blamed("The thing 'x'", Plugin()):
        require(False, "It is blue.")


def test_what_is_as_it_must_be_is_not_printed(monkeypatch):
    """Whoever prints a tensor waits for its device."""
    printed = []
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda x: printed.append(x) or "tensor(3)")
    require(True, "It is a name, not", torch.tensor(3))
    assert not printed
    with pytest.raises(BrokenRule, match=r"^It is a name, not tensor\(3\)\.$"):
        require(False, "It is a name, not", torch.tensor(3))


@pytest.mark.parametrize(
    "error",
    [DataError("x"), StoreError("x"), MemoryShort("x"), MemoryError(), torch.OutOfMemoryError("x")],
)
def test_words_for_people_and_memory_that_gives_out_stay(error):
    with pytest.raises(type(error)) as raised, blamed("The thing 'x'", Plugin()):
        Plugin().work(error)
    assert raised.value is error


def test_of_an_extension_of_this_package_words_stay_and_faults_have_its_name():
    energy = get("detectors", "energy")
    with pytest.raises(ValueError, match=r"^In words\.$"), blamed("Energy", energy):
        raise ValueError("In words.")
    with (
        pytest.raises(ValueError, match=r"^Energy: IndexError: far out\.$") as raised,
        blamed("Energy", energy),
    ):
        raise IndexError("far out")
    assert type(raised.value) is ValueError


def test_an_error_that_passed_no_line_of_the_plug_in_has_no_place():
    with pytest.raises(BrokenRule) as raised:
        raise BrokenRule("x")
    assert place_in(torch.nn.Linear, raised.value) == ""
