"""Vectors between classes lie on the arc that they are said to lie on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from oodream.core.registry import make
from oodream.core.types import Features
from oodream.synthesis.samplers.between import Between
from tests.helpers.features import features


def angle(a, b) -> float:
    return float(np.arccos(np.clip(np.dot(a, b), -1, 1)))


@pytest.mark.parametrize("end", ["feature", "mean"])
def test_vectors_lie_on_arcs_to_ends_of_other_classes(end):
    f = features(n=12, classes=3, spread=0.5)
    drawn = Between(low=0.3, high=0.45, nearest=0, end=end)(f, 15, 1, "s")
    z, y = f.z_ND.double().numpy(), f.y_N.numpy()
    means = [z[y == c].mean(0) / np.linalg.norm(z[y == c].mean(0)) for c in range(3)]
    seen = set()
    for v, c, anchor in zip(drawn.z_MD.double().numpy(), drawn.y_M.tolist(), drawn.anchor_M, strict=True):
        ends = [
            (o, e) for o in range(3) if o != c for e in (z[y == o] if end == "feature" else means[o][None])
        ]
        # On the arc from a to e the two angles add up to the whole.
        bends = [angle(z[anchor], v) + angle(v, e) - angle(z[anchor], e) for _, e in ends]
        o, e = ends[int(np.argmin(bends))]
        assert min(bends) < 1e-4
        assert 0.3 - 1e-3 < angle(z[anchor], v) / angle(z[anchor], e) < 0.45 + 1e-3
        seen.add((c, o))
    assert len(seen) == 6


def test_the_nearest_class_is_the_one_of_the_largest_cosine():
    """Three classes in a row: the middle one's neighbours are both, the outer ones' is the middle one."""
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.3, 1.0, 0.0]])
    y = torch.arange(3).repeat_interleave(10)
    z = normalize(normalize(centres, dim=1)[y] + 0.02 * torch.randn(30, 3, generator=g), dim=1)
    f = Features(z_ND=z, y_N=y, index_N=torch.arange(30), encoder="test")
    drawn = Between(nearest=1, low=0.5, high=0.5)(f, 20, 0, "s")
    middle = normalize(centres, dim=1)
    for c, other in ((0, 1), (1, 2), (2, 1)):
        half = normalize(middle[c] + middle[other], dim=0)
        assert (drawn.z_MD[drawn.y_M == c] @ half).min() > 0.99


def test_weights_0_and_1_are_the_ends():
    f = features()
    start = Between(low=0, high=0)(f, 8, 0, "s")
    torch.testing.assert_close(start.z_MD, f.z_ND[start.anchor_M])
    end = Between(low=1, high=1)(f, 8, 0, "s")
    nearest = (end.z_MD @ f.z_ND.T).max(1)
    torch.testing.assert_close(nearest.values, torch.ones(24))
    assert (f.y_N[nearest.indices] != end.y_M).all()


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match=r"There is one class, '0'; the sampler 'between' needs two"):
        Between()(features(classes=1), 2, 0, "s")


@pytest.mark.parametrize(
    ("option", "value"),
    [("low", -0.1), ("low", 0.7), ("high", 1.2), ("nearest", -1), ("nearest", 1.5), ("end", "x")],
)
def test_bad_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"sampler 'between': {option} (must|cannot) be"):
        make("samplers", "between", **{option: value})
