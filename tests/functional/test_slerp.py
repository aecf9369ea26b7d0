"""Arcs between vectors and away from one."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from oodream.functional.slerp import COSINES, along, away, slerp


def test_slerp_follows_the_great_circle():
    a, b = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.0])
    arc = slerp(a, b, 5)
    torch.testing.assert_close(arc.norm(dim=1), torch.ones(5))
    angles = torch.rad2deg(torch.arccos((arc[:-1] * arc[1:]).sum(1)))
    torch.testing.assert_close(angles, torch.full((4,), 22.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(arc[[0, -1]], torch.tensor([[1.0, 0, 0], [0, 1, 0]]), atol=1e-6, rtol=0)
    assert torch.isfinite(slerp(a, a, 3)).all()


def test_away_keeps_the_stated_cosines():
    anchor = torch.randn(64, generator=torch.Generator().manual_seed(0))
    arc = away(anchor, 3)
    torch.testing.assert_close(arc.norm(dim=1), torch.ones(len(COSINES)))
    torch.testing.assert_close(
        torch.cosine_similarity(arc, anchor[None], dim=1), torch.tensor(COSINES), atol=1e-5, rtol=0
    )
    assert torch.equal(arc, away(anchor, 3))
    assert not torch.equal(arc[1:], away(anchor, 4)[1:])


def test_along_is_a_point_of_each_arc():
    g = torch.Generator().manual_seed(1)
    a, b, t = torch.randn(5, 7, generator=g), torch.randn(5, 7, generator=g), torch.linspace(0, 1, 5)
    points = along(a, b, t)
    for i in range(5):
        torch.testing.assert_close(points[i], slerp(a[i], b[i], 5)[i], atol=1e-6, rtol=0)


def test_along_is_finite_where_no_arc_is_the_shortest():
    a = normalize(torch.tensor([[1.0, 2.0, 3.0]]), dim=1).expand(2, 3)
    t = torch.tensor([0.3, 0.7])
    torch.testing.assert_close(along(a, a, t), a)
    torch.testing.assert_close(along(a, -a, t), torch.stack([a[0], -a[0]]))
