"""What every registered detector must do; a new one is tested here before its author writes a test."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from oodream import registry
from oodream.detectors import NotFitted
from oodream.types import Output

CLASSES, WIDTH = 4, 12
NAMES = registry.names("detectors")
LEARNING = ("knn", "mahalanobis")


def outputs(n: int, spread: float, seed: int) -> tuple[Output, Tensor]:
    """A Gaussian mixture seen by its linear classifier; `spread` scales how far samples stand from the class axes' origin."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    axes = 6 * torch.eye(CLASSES, WIDTH)
    z = spread * axes[y] + torch.randn(n, WIDTH, generator=g)
    return Output(logits_BC=z @ axes.T / 6, z_BF=z), y


def away(n: int, seed: int) -> Output:
    """Features along an axis no class uses: every logit is small."""
    z = outputs(n, 0.0, seed)[0].z_BF + 15 * torch.eye(WIDTH)[-1]
    return Output(logits_BC=z[:, :CLASSES], z_BF=z)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_five_are_registered() -> None:
    assert {"msp", "max_logit", "energy", "knn", "mahalanobis"} <= set(NAMES)


def test_fit_returns_self_and_far_away_scores_higher(name: str) -> None:
    detector = registry.make("detectors", name)
    assert detector.fit(*outputs(400, 1.0, 0)) is detector
    id_N, ood_M = detector.score(outputs(200, 1.0, 1)[0]), detector.score(away(100, 2))
    assert id_N.shape == (200,)
    assert id_N.dtype == torch.float64
    assert torch.cat([id_N, ood_M]).isfinite().all()
    assert (ood_M[:, None] > id_N).double().mean() > 0.95


def test_scores_do_not_depend_on_the_batch_or_the_run(name: str) -> None:
    detector = registry.make("detectors", name).fit(*outputs(400, 1.0, 0))
    test = outputs(30, 1.0, 1)[0]
    whole = detector.score(test)
    parts = [detector.score(Output(logits_BC=test.logits_BC[a:b], z_BF=test.z_BF[a:b])) for a, b in ((0, 1), (1, 12), (12, 30))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-12)
    again = registry.make("detectors", name).fit(*outputs(400, 1.0, 0))
    assert torch.equal(again.score(test), whole)


def test_very_confident_outputs_stay_finite_and_apart(name: str) -> None:
    detector = registry.make("detectors", name).fit(*outputs(400, 1.0, 0))
    z = torch.linspace(1, 3, 50)[:, None] * (100 * torch.eye(CLASSES, WIDTH)[:1] + torch.linspace(0, 1, WIDTH))
    z = z + 0.1 * torch.linspace(-1, 1, 50)[:, None] * torch.eye(WIDTH)[1]
    scores = detector.score(Output(logits_BC=z[:, :CLASSES], z_BF=z))
    assert scores.isfinite().all()
    assert len(scores.unique()) == 50


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_are_refused_by_name(name: str, bad: float) -> None:
    detector = registry.make("detectors", name).fit(*outputs(400, 1.0, 0))
    broken = outputs(5, 1.0, 1)[0]
    broken.logits_BC[2, 1] = bad
    broken.z_BF[2, 1] = bad
    with pytest.raises(ValueError, match=r"(logits|features) contain NaN or infinity"):
        detector.score(broken)


@pytest.mark.parametrize("name", LEARNING)
def test_score_before_fit_and_fit_on_nan_are_refused(name: str) -> None:
    detector = registry.make("detectors", name)
    output, y = outputs(400, 1.0, 0)
    with pytest.raises(NotFitted, match="fit"):
        detector.score(output)
    output.z_BF[0, 0] = torch.nan
    with pytest.raises(ValueError, match="features contain NaN"):
        detector.fit(output, y)
