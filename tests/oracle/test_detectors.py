"""Each detector against somebody else's code or the textbook formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from torch import Tensor

from oodream import registry
from oodream.detectors import RIDGE
from oodream.types import Output


def outputs(n: int, seed: int, classes: int = 5, width: int = 9) -> tuple[Output, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    z = torch.randn(n, width, generator=g) @ torch.randn(width, width, generator=g) + 2 * torch.eye(classes, width)[y]
    return Output(logits_BC=3 * torch.randn(n, classes, generator=g), z_BF=z), y


FIT, TEST = outputs(300, 0), outputs(60, 1)[0]
LOGITS, Z, Z_FIT, Y_FIT = (t.numpy() for t in (TEST.logits_BC.double(), TEST.z_BF.double(), FIT[0].z_BF.double(), FIT[1]))


def score(name: str, output: Output = TEST, **options: int) -> np.ndarray:
    return registry.make("detectors", name, **options).fit(*FIT).score(output).numpy()


def test_msp_is_log_of_one_minus_the_largest_probability() -> None:
    np.testing.assert_allclose(score("msp"), np.log(1 - softmax(LOGITS, axis=1).max(1)), rtol=1e-7)


def test_msp_does_not_saturate() -> None:
    logits = torch.zeros(3, 4)
    logits[:, 2] = torch.tensor([50.0, 100.0, 800.0])  # 1 - p = 3 exp(-logit), to far below float64's resolution at one
    np.testing.assert_allclose(score("msp", Output(logits_BC=logits, z_BF=logits)), np.log(3) - np.array([50, 100, 800]))


def test_max_logit() -> None:
    np.testing.assert_array_equal(score("max_logit"), -np.max(LOGITS, axis=1))


def test_energy_and_its_overflow() -> None:
    np.testing.assert_allclose(score("energy"), -logsumexp(LOGITS, axis=1), rtol=1e-12)
    big = torch.tensor([[1e4, 1e4]])
    np.testing.assert_allclose(score("energy", Output(logits_BC=big, z_BF=big)), [-1e4 - np.log(2)], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_knn_against_scikit_learn(k: int) -> None:
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(normalize(Z_FIT))
    np.testing.assert_allclose(score("knn", k=k), search.kneighbors(normalize(Z))[0][:, -1], rtol=1e-5)


def test_knn_survives_a_zero_feature_and_a_small_bank() -> None:
    nothing = Output(logits_BC=torch.zeros(1, 5), z_BF=torch.zeros(1, 9))
    np.testing.assert_allclose(score("knn", nothing), [1.0], rtol=1e-6)
    np.testing.assert_allclose(score("knn", k=301), score("knn", k=len(Z_FIT)))


def mahalanobis_oracle(z_fit: np.ndarray, z: np.ndarray) -> np.ndarray:
    means = np.stack([z_fit[c == Y_FIT].mean(0) for c in range(5)])
    cov = EmpiricalCovariance(assume_centered=True).fit(z_fit - means[Y_FIT]).covariance_
    precision = np.linalg.inv(cov + RIDGE * np.trace(cov) / len(cov) * np.eye(len(cov)))
    difference = z[:, None] - means[None]
    return np.einsum("ncf,fg,ncg->nc", difference, precision, difference).min(1)


def test_mahalanobis_against_scikit_learn() -> None:
    np.testing.assert_allclose(score("mahalanobis"), mahalanobis_oracle(Z_FIT, Z), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_mahalanobis_does_not_depend_on_the_features_scale(scale: float) -> None:
    fit = Output(logits_BC=FIT[0].logits_BC, z_BF=FIT[0].z_BF.double() * scale)
    test = Output(logits_BC=TEST.logits_BC, z_BF=TEST.z_BF.double() * scale)
    scaled = registry.make("detectors", "mahalanobis").fit(fit, FIT[1]).score(test).numpy()
    np.testing.assert_allclose(scaled, score("mahalanobis"), rtol=1e-6)


def test_mahalanobis_bears_dead_features_and_names_what_it_cannot_bear() -> None:
    dead = Output(logits_BC=FIT[0].logits_BC, z_BF=FIT[0].z_BF * (torch.arange(9) != 4))
    assert registry.make("detectors", "mahalanobis").fit(dead, FIT[1]).score(TEST).isfinite().all()
    with pytest.raises(ValueError, match="no training sample of class 3"):
        registry.make("detectors", "mahalanobis").fit(FIT[0], FIT[1].where(FIT[1] != 3, 0))
    with pytest.raises(ValueError, match="vary within classes"):
        registry.make("detectors", "mahalanobis").fit(Output(logits_BC=torch.zeros(5, 5), z_BF=torch.eye(5)), torch.arange(5))
