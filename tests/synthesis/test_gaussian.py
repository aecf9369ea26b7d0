"""Class Gaussians against numpy, and against the chi-squared law of their distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, ks_2samp
from torch.nn.functional import normalize

from oodream.core.registry import make
from oodream.core.seeding import generator
from oodream.synthesis.samplers.gaussian import Gaussian
from tests.helpers.features import features


def test_equals_a_plain_loop():
    f, sampler = features(n=20, width=6), Gaussian(candidates=40, epsilon=0.1, spread=1.7, shrinkage=0.2)
    drawn = sampler(f, 10, 3, "s")
    z, y = f.z_ND.double().numpy(), f.y_N.numpy()
    centred = z - np.stack([z[y == c].mean(0) for c in range(3)])[y]
    cov = centred.T @ centred / len(z)
    cov = 0.8 * cov + (0.2 + 1e-6) * np.trace(cov) / 6 * np.eye(6)
    factor = np.linalg.cholesky(cov)
    for c in range(3):
        expected = []
        for turn in range(3):  # 4 of 40 candidates stay in every round
            noise = torch.randn(40, 6, generator=generator(3, "gaussian", c, turn)).double().numpy()
            draws = np.array([z[y == c].mean(0) + 1.7 * factor @ e for e in noise])
            mean, inverse = z[y == c].mean(0), np.linalg.inv(cov)
            distance = np.array([(v - mean) @ inverse @ (v - mean) for v in draws])
            expected += [draws[j] / np.linalg.norm(draws[j]) for j in np.argsort(-distance)[:4]]
        np.testing.assert_allclose(drawn.z_MD[drawn.y_M == c].numpy(), expected[:10], atol=1e-5)


def test_anchors_are_the_nearest_features():
    f = features(n=20)
    drawn = Gaussian(candidates=100, epsilon=0.1)(f, 5, 0, "s")
    for v, y, anchor in zip(drawn.z_MD, drawn.y_M, drawn.anchor_M, strict=True):
        distance = (f.z_ND - v).norm(dim=1).masked_fill(f.y_N != y, torch.inf)
        assert anchor == distance.argmin()


def test_kept_noise_has_the_distances_of_the_tail():
    """The least likely share epsilon of a Gaussian of width D is what lies beyond a quantile of chi^2."""
    noise = Gaussian(candidates=1000, epsilon=0.05)._extreme(12, 500, 0, 0)
    square = noise.square().sum(1).numpy()
    tail = chi2.ppf(0.95 + 0.05 * (np.arange(5000) + 0.5) / 5000, 12)
    assert ks_2samp(square, tail).pvalue > 1e-3
    assert ks_2samp(square, chi2.ppf((np.arange(5000) + 0.5) / 5000, 12)).pvalue < 1e-6


def test_inliers_have_the_distances_of_the_other_end():
    noise = Gaussian(candidates=1000, epsilon=0.05, kind="inlier")._extreme(12, 500, 0, 0)
    head = chi2.ppf(0.05 * (np.arange(5000) + 0.5) / 5000, 12)
    assert ks_2samp(noise.square().sum(1).numpy(), head).pvalue > 1e-3


def test_inliers_of_a_small_spread_are_the_class_s_mean_direction():
    f = features(n=40)
    drawn = Gaussian(kind="inlier", spread=0.01)(f, 5, 0, "s")
    assert drawn.kind == "inlier"
    for z, y in zip(drawn.z_MD, drawn.y_M, strict=True):
        assert z @ normalize(f.z_ND[f.y_N == y].mean(0), dim=0) > 0.999


def test_with_epsilon_1_draws_are_the_gaussian():
    f = features(n=200, classes=1, width=5, spread=0.3)
    drawn = Gaussian(candidates=4000, epsilon=1.0, shrinkage=0.0)(f, 4000, 0, "s")
    direction = normalize(f.z_ND.mean(0), dim=0)
    # To first order renormalising only takes the part along the mean away.
    across = torch.linalg.qr(direction[:, None], mode="complete").Q[:, 1:]
    mine, theirs = ((z @ across).T.cov() for z in (drawn.z_MD, f.z_ND))
    assert (mine - theirs).norm() / theirs.norm() < 0.15


def test_more_vectors_begin_with_the_same_ones():
    f, sampler = features(), Gaussian(candidates=100, epsilon=0.1)
    few, many = (sampler(f, n, 7, "s") for n in (4, 25))
    assert torch.equal(few.z_MD, many.z_MD[: len(few)])


def test_spread_leads_away():
    f = features()
    near, far = (Gaussian(candidates=100, epsilon=0.1, spread=x)(f, 20, 0, "s").knn_M.mean() for x in (1, 3))
    assert far > 1.3 * near


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("candidates", 0),
        ("epsilon", 0.0),
        ("epsilon", 1.1),
        ("spread", 0.0),
        ("spread", math.inf),
        ("shrinkage", -0.1),
        ("shrinkage", 1.5),
        ("shrinkage", "much"),
        ("epsilon", 1e-05),
    ],
)
def test_bad_options_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"sampler 'gaussian': {option} (must|cannot) be"):
        make("samplers", "gaussian", **{option: value})
