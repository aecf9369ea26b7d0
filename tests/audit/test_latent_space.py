"""Whether known images' embeddings, decoded as they are, show their class."""

from __future__ import annotations

import pytest
import torch

from oodream.audit.latent_space import drawability

NAMES = ("cat", "dog")
Y = torch.tensor([0] * 10 + [1] * 10)


def found(hits: int, of_dog: int = 10):
    """A finding where the first `hits` cats and `of_dog` dogs are recognised."""
    right = torch.tensor([i < hits for i in range(10)] + [i < of_dog for i in range(10)])
    return next(drawability(right, Y, NAMES, accuracy=0.9))


def test_most_show_their_class():
    finding = found(8)
    assert (finding.kind, finding.severity, finding.share, finding.count) == ("latent space", "fine", 0.9, 20)
    assert "show their class to the baseline classifier, which names 90.0\u00a0% of real" in finding.message
    assert "align.pull" not in finding.message


def test_a_space_that_cannot_be_drawn_is_warned_of():
    finding = found(2, of_dog=9)
    assert (finding.severity, finding.share) == ("warning", 0.55)
    assert "align.pull" in finding.message
    assert list(finding.examples) == [{"class": "cat", "share": pytest.approx(0.2)}]


def test_the_interval_is_wilsons():
    """Of 20, 18: 69.9 to 97.2 % (Wilson's formula by hand)."""
    n, p, z = 20, 0.9, 1.959964
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = ((centre + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert f"({100 * low:.1f}\u00a0% to {100 * high:.1f}\u00a0%)" in found(8).message


def test_nothing_drawn_nothing_found():
    assert list(drawability(torch.zeros(0, dtype=torch.bool), torch.zeros(0), NAMES, 0.9)) == []
