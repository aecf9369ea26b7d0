"""Vectors of a shell stand at the distance that they were asked for, measured by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from oodream.core.registry import make
from oodream.core.types import Features
from oodream.synthesis.samplers.shell import Shell
from tests.helpers.features import features


def distances(f, c: int, kind: str, shrinkage: float):
    """The distance of vectors to class c, and the distances of its own features, in numpy."""
    z, y = f.z_ND.double().numpy(), f.y_N.numpy()
    own = z[y == c]
    if kind == "knn":
        k = max(1, len(own) // 5)

        def measure(v):
            return sorted(np.linalg.norm(v - x) for x in own)[k - 1]

        n = range(len(own))
        others = [sorted(np.linalg.norm(own[i] - own[j]) for j in n if j != i) for i in n]
        return measure, np.array([row[k - 1] for row in others])
    centred = z - np.stack([z[y == i].mean(0) for i in range(y.max() + 1)])[y]
    cov = centred.T @ centred / len(z)
    width = z.shape[1]
    cov = (1 - shrinkage) * cov + (shrinkage + 1e-6) * np.trace(cov) / width * np.eye(width)
    inverse, mean = np.linalg.inv(cov), own.mean(0)

    def mahalanobis(v):
        return np.sqrt((v - mean) @ inverse @ (v - mean))

    return mahalanobis, np.array([mahalanobis(v) for v in own])


@pytest.mark.parametrize("kind", ["mahalanobis", "knn"])
@pytest.mark.parametrize(("quantile", "low", "high"), [(0.99, 1.0, 1.0), (0.5, 1.2, 1.2), (0.9, 1.0, 1.3)])
def test_vectors_stand_at_the_distance(kind, quantile, low, high):
    f = features(n=40, width=12, spread=0.4)
    drawn = Shell(distance=kind, quantile=quantile, low=low, high=high, shrinkage=0.2)(f, 12, 0, "s")
    for c in range(3):
        measure, own = distances(f, c, kind, 0.2)
        radius = np.quantile(own, quantile)
        seen = np.array([measure(v) for v in drawn.z_MD[drawn.y_M == c].double().numpy()]) / radius
        assert seen.min() > low - 2e-3
        assert seen.max() < high + 1e-2
        assert seen.max() - seen.min() >= (high - low) / 3


@pytest.mark.parametrize("kind", ["mahalanobis", "knn"])
def test_it_is_the_first_place_on_the_way(kind):
    """All points of the arc before the vector are nearer to the class."""
    f = features(n=40, width=12, spread=0.4)
    drawn = Shell(distance=kind, low=1.2, high=1.2)(f, 6, 0, "s")
    for v, c, anchor in zip(drawn.z_MD.double(), drawn.y_M.tolist(), drawn.anchor_M, strict=True):
        measure, own = distances(f, c, kind, 0.1)
        b = f.z_ND[anchor].double()
        for t in np.linspace(0, 0.97, 15):
            point = normalize((1 - t) * b + t * v, dim=0)
            assert measure(point.numpy()) < 1.2 * np.quantile(own, 0.99) * 1.001


def test_distances_mean_the_same_in_a_class_that_is_spread_wider():
    """A class of four times the spread has vectors at about four times the angle from their anchors."""
    tight, wide = (features(n=50, classes=1, width=12, spread=x) for x in (0.1, 0.4))
    near, far = (
        (d.z_MD * f.z_ND[d.anchor_M]).sum(1).arccos().mean()
        for f, d in ((f, Shell()(f, 50, 0, "s")) for f in (tight, wide))
    )
    assert 3 < far / near < 5


def test_directions_of_the_class_are_those_in_which_it_varies():
    """A class that varies along one axis: nearly all of the way lies along it."""
    g = torch.Generator().manual_seed(0)
    z = torch.zeros(200, 8)
    z[:, 0], z[:, 1:] = 1, 0.002 * torch.randn(200, 7, generator=g)
    z[:, 1] += 0.2 * torch.randn(200, generator=g)
    f = Features(
        z_ND=normalize(z, dim=1), y_N=torch.zeros(200).long(), index_N=torch.arange(200), encoder="t"
    )
    for direction, least, most in (("class", 0.9, 1), ("any", 0, 0.6)):
        drawn = Shell(direction=direction, shrinkage=0.0)(f, 40, 0, "s")
        way = normalize(drawn.z_MD - f.z_ND[drawn.anchor_M], dim=1)
        assert least < way[:, 1].abs().median() < most


def test_a_walk_ends_at_a_quarter_of_the_circle():
    f = features(n=40, width=12)
    drawn = Shell(distance="knn", low=50, high=50)(f, 6, 0, "s")
    cosine = (drawn.z_MD * f.z_ND[drawn.anchor_M]).sum(1)
    torch.testing.assert_close(cosine, torch.zeros(18), atol=1e-5, rtol=0)


def test_walks_begin_within_the_shell():
    f = features(n=40, width=12)
    drawn = Shell(quantile=0.3, low=1.0, high=1.0)(f, 60, 0, "s")
    for c in range(3):
        measure, own = distances(f, c, "mahalanobis", 0.1)
        anchors = f.z_ND[drawn.anchor_M[drawn.y_M == c]].double().numpy()
        assert max(measure(b) for b in anchors) <= np.quantile(own, 0.3) + 1e-4


def test_a_class_of_one_image_is_named():
    f = Features(z_ND=torch.eye(3), y_N=torch.tensor([0, 0, 1]), index_N=torch.arange(3), encoder="test")
    with pytest.raises(ValueError, match="Class '1' has 1 image"):
        Shell()(f, 2, 0, "s")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("distance", "far"),
        ("direction", "up"),
        ("quantile", 1.1),
        ("quantile", -0.1),
        ("low", 0.0),
        ("low", 2.1),
        ("high", 0.0),
        ("shrinkage", 2.0),
    ],
)
def test_bad_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"sampler 'shell': {option} must be"):
        make("samplers", "shell", **{option: value})
