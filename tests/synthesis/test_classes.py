"""What samplers share, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oodream.synthesis.samplers._classes import Classes, check_several, neighbour
from tests.helpers.features import features


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_tied_covariance_is_that_about_the_class_means(shrinkage):
    f = features(n=7, classes=3, width=4)
    z, y = f.z_ND.numpy().astype(np.float64), f.y_N.numpy()
    total = np.zeros((4, 4))
    for i in range(len(z)):
        difference = z[i] - z[y == y[i]].mean(0)
        total += np.outer(difference, difference)
    total /= len(z)
    variance = np.trace(total) / 4
    expected = (1 - shrinkage) * total + shrinkage * variance * np.eye(4)
    mine = Classes.of(f).tied_covariance(shrinkage).numpy()
    np.testing.assert_allclose(mine, expected, atol=1e-5 * variance)


def test_one_feature_each_has_a_covariance_that_can_be_inverted():
    assert torch.linalg.cholesky(Classes.of(features(n=1)).tied_covariance(0.0)).isfinite().all()


def test_vectors_know_class_anchor_and_distance():
    f = features(n=11)
    classes = Classes.of(f)
    drawn = classes.sample(lambda i: (classes.z[i][[3, 5]].flip(1), torch.tensor([3, 5])), "outlier", 0, "s")
    assert drawn.y_M.tolist() == [0, 1, 2, 0, 1, 2]
    assert drawn.anchor_M.tolist() == [3, 14, 25, 5, 16, 27]
    for v, y, d in zip(drawn.z_MD, drawn.y_M, drawn.knn_M, strict=True):
        own = sorted((f.z_ND[f.y_N == y] - v).norm(dim=1).tolist())
        assert d.item() == pytest.approx(own[neighbour(11) - 1], abs=1e-5)


def test_one_class_has_no_other():
    check_several(torch.tensor([0, 1]), ["a", "b"], "x")
    with pytest.raises(ValueError, match="There is one class, 'b'; x needs two"):
        check_several(torch.tensor([1, 1]), ["a", "b"], "x")
