"""Walks across a class boundary: the direction against autograd, the walk against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from oodream.core.registry import make
from oodream.core.types import Features
from oodream.synthesis.samplers.boundary_walk import BoundaryWalk
from tests.helpers.features import features


def means(f) -> np.ndarray:
    z, y = f.z_ND.double().numpy(), f.y_N.numpy()
    m = np.stack([z[y == c].mean(0) for c in np.unique(y)])
    return m / np.linalg.norm(m, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_direction_is_that_of_autograd(temperature):
    f = features(classes=4, spread=1.0)
    m = torch.tensor(means(f))
    z = f.z_ND[::30].double().requires_grad_()
    logits = cosine_similarity(z[:, None], m, dim=2) / temperature
    cross_entropy(logits, torch.full((len(z),), 2), reduction="sum").backward()
    mine = BoundaryWalk(temperature=temperature)._uphill(z.detach(), m, 2)
    torch.testing.assert_close(mine, normalize(z.grad, dim=1), atol=1e-6, rtol=0)
    torch.testing.assert_close((mine * z).sum(1), torch.zeros_like(z[:, 0]), atol=1e-6, rtol=0)


def test_the_direction_is_finite_where_the_classifier_is_sure():
    f = features(classes=4, spread=0.01)
    uphill = BoundaryWalk(temperature=1e-3)._uphill(f.z_ND, torch.tensor(means(f)).float(), 0)
    torch.testing.assert_close(uphill.norm(dim=1), torch.ones(len(uphill)))


def walked(z, m, c: int, angle: float, temperature: float, more: int):
    """One walk in numpy float64: the vector and the steps until another class is predicted."""
    steps, left = 0, None
    while left != 0:
        if left is None and (m @ z).argmax() != c:
            left = more
            continue
        logits = m @ z / temperature
        p = np.exp(logits - logits.max())
        p /= p.sum()
        gradient = p @ m - m[c]
        gradient -= (gradient @ z) * z
        z = math.cos(angle) * z + math.sin(angle) * gradient / np.linalg.norm(gradient)
        if left is None:
            steps += 1
        else:
            left -= 1
    return z, steps


@pytest.mark.parametrize("more", [0, 3])
def test_equals_a_plain_loop(more):
    f = features(n=20)
    m = means(f)
    sampler = BoundaryWalk(cosine=1.0, low=more, high=more, angle=0.05, boundary=0.25)
    drawn = sampler(f, 12, 0, "s")
    for v, c, anchor in zip(drawn.z_MD, drawn.y_M.tolist(), drawn.anchor_M.tolist(), strict=True):
        expected, _ = walked(f.z_ND[anchor].double().numpy(), m, c, 0.05, 0.1, more)
        np.testing.assert_allclose(v.numpy(), expected, atol=1e-4)
    for c in range(3):
        rows = (f.y_N == c).nonzero()[:, 0].tolist()
        walks = {i: walked(f.z_ND[i].double().numpy(), m, c, 0.05, 0.1, 0)[1] for i in rows}
        margin = {i: (s := np.sort(m @ f.z_ND[i].double().numpy()))[-1] - s[-2] for i in rows}
        first = sorted(rows, key=lambda i: (walks[i], margin[i]))[:5]
        assert set(drawn.anchor_M[drawn.y_M == c].tolist()) <= set(first)


def test_vectors_are_across_the_boundary():
    f = features(spread=0.8)
    m = torch.tensor(means(f)).float()
    just, further = (BoundaryWalk(low=n, high=n)(f, 40, 0, "s") for n in (0, 8))
    margins = []
    for drawn in (just, further):
        cosine = drawn.z_MD @ m.T
        own = cosine.gather(1, drawn.y_M[:, None])[:, 0]
        other = cosine.scatter(1, drawn.y_M[:, None], -torch.inf).amax(1)
        assert (own < other).all()
        margins.append((own - other).mean())
    assert margins[0] > -0.06
    assert margins[1] < margins[0] - 0.1


def test_more_steps_are_between_low_and_high():
    """All from one feature: as many different vectors as there are numbers of steps."""
    f = features(n=20)
    drawn = BoundaryWalk(cosine=1.0, boundary=0.01, low=1, high=4)(f, 60, 0, "s")
    assert len(drawn.z_MD[drawn.y_M == 0].unique(dim=0)) == 4


def test_features_that_are_mistaken_come_last():
    f = features(n=20)
    y = f.y_N.clone()
    y[0], y[20] = 1, 0  # two wrong labels
    wrong = Features(z_ND=f.z_ND, y_N=y, index_N=f.index_N, encoder="test")
    drawn = BoundaryWalk(boundary=0.9)(wrong, 200, 0, "s")
    assert not {0, 20} & set(drawn.anchor_M.tolist())


def test_one_class_alone_is_refused():
    with pytest.raises(ValueError, match=r"There is one class, '0'; the sampler 'boundary_walk' needs two"):
        BoundaryWalk()(features(classes=1), 2, 0, "s")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", 0.0),
        ("angle", 0.0),
        ("angle", 0.6),
        ("boundary", 0.0),
        ("low", -1),
        ("low", 7),
        ("high", -1),
        ("max_steps", 0),
        ("cosine", 0.0),
        ("cosine", 1.01),
    ],
)
def test_bad_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"sampler 'boundary_walk': {option} must be"):
        make("samplers", "boundary_walk", **{option: value})
