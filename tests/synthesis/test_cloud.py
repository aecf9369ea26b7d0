"""The sampler's acceleration: its selection is exact, and the noise that anchors share is as good as their
own.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from oodream.synthesis.samplers._cloud import Cloud, farthest
from tests.helpers.features import features


def cloud(z, anchors: int, count: int, sigma: float, seed: int = 1) -> Cloud:
    return Cloud.draw(z[:anchors], count, sigma, torch.Generator().manual_seed(seed))


def everyone(c: Cloud) -> torch.Tensor:
    """Every candidate: (A, count, D)."""
    a, j = torch.arange(len(c.b_AD)).repeat_interleave(c.count), torch.arange(c.count).repeat(len(c.b_AD))
    return c.take(a, j).view(len(c.b_AD), c.count, -1)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("kept", [1, 2, 5])
@pytest.mark.parametrize(
    ("n", "classes", "width", "k", "anchors", "count"),
    [
        (400, 1, 32, 120, 20, 200),
        (300, 4, 16, 40, 5, 301),
        (1100, 1, 8, 1, 3, 64),
        (50, 1, 4, 50, 50, 6),
        (70, 1, 96, 9, 1, 5),
    ],
)
def test_the_kept_are_the_extremes_of_all_candidates(sign, kept, n, classes, width, k, anchors, count):
    """Against all distances in numpy; with several classes in one, the mean says little and the count
    decides.
    """
    z = features(n=n, classes=classes, width=width, spread=0.7).z_ND
    c = cloud(z, anchors, count, 0.8 / math.sqrt(width))
    v, d = farthest(c, z, k, kept, sign)
    rivals = everyone(c).double().numpy()
    for a in range(anchors):
        distance = np.sort(np.linalg.norm(rivals[a][:, None] - z.double().numpy(), axis=2), axis=1)[:, k - 1]
        best = np.argsort(-sign * distance)[:kept]
        np.testing.assert_allclose(d[a].numpy(), distance[best], atol=1e-6)
        np.testing.assert_allclose(v[a].numpy(), rivals[a][best], atol=1e-6)


def test_candidates_of_one_anchor_are_independent_and_of_two_nearly():
    width, sigma = 20_000, 0.3
    c = cloud(torch.zeros(6, width), 6, 10, sigma)
    noise = torch.stack(
        [torch.cat([c.p_HD + c.q_KD[a : a + 5], c.p_HD - c.q_KD[a : a + 5]]) for a in range(6)]
    )
    torch.testing.assert_close(everyone(c), normalize(noise, dim=2))
    correlation = torch.einsum("aid,bjd->abij", noise, noise) / width / sigma**2
    for a in range(6):
        torch.testing.assert_close(correlation[a, a], torch.eye(10), atol=0.05, rtol=0)
        for b in range(a):
            assert correlation[a, b].abs().max() < 0.55


@pytest.mark.parametrize("together", [2, 7, 100])
def test_anchors_can_be_counted_together(together):
    """As a GPU does; the counts of a processor, which takes one anchor after the other."""
    z = features(n=120, classes=1, width=16, spread=0.7).z_ND
    c = cloud(z, 7, 31, 0.2)
    limit = torch.linspace(0.2, 0.9, 7 * 31).view(7, 31)
    one_by_one = c.near(z, limit, together=1)
    assert 0 < one_by_one.sum() < one_by_one.numel() * len(z)
    assert torch.equal(c.near(z, limit, block=50, together=together), one_by_one)
