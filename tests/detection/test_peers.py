"""Parity with pytorch-ood 0.4.0 on the same tensors (`golden/make.py` recorded its values), and where it is
wrong.
"""

from __future__ import annotations

import pytest
import torch

from oodream.core import registry
from oodream.core.types import Output
from oodream.detection.detectors.openmax import weibull
from tests.golden.parity import (
    CASES,
    GOLDEN,
    IN,
    OURS_ALONE,
    UNLIKE,
    Case,
    difference,
    metrics,
    scores,
    theirs,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.peer}")
def test_scores_are_the_peers_in_our_convention(case: Case) -> None:
    assert difference(case) < case.tolerance
    assert torch.equal(scores(case).argsort(), theirs(case).argsort()) or case.tolerance > 1e-7


def test_every_detector_is_compared_or_said_not_to_be() -> None:
    assert {case.name for case in CASES} | UNLIKE.keys() | set(OURS_ALONE) == set(registry.names("detectors"))


@pytest.mark.parametrize("name", sorted(metrics()))
def test_metrics_are_the_peers(name: str) -> None:
    ours, peer = metrics()[name]
    assert ours == pytest.approx(peer, abs=1e-6)


def test_our_temperature_is_likelier_than_the_peers() -> None:
    fit = Output(logits_BC=IN["logits_fit"], z_BF=IN["z_fit"])
    t = registry.make("detectors", "temperature").fit(fit, IN["y_fit"]).t_

    def nll(t: torch.Tensor) -> float:
        return torch.nn.functional.cross_entropy(IN["logits_fit"].double() / t, IN["y_fit"]).item()

    assert nll(t) < nll(GOLDEN["fit.temperature.t"]) - 1e-3
    assert all(nll(t) <= nll(t * factor) for factor in (0.999, 1.001))


def test_the_weibull_of_a_tail_is_the_peers() -> None:
    """On the tails the peer has fitted: the Euclidean distances of all samples of a class from their mean."""
    logits, y = IN["logits_fit"].double(), IN["y_fit"]
    for c, (shape, scale, least) in enumerate(GOLDEN["fit.openmax_euclid.weibull"]):
        tail = (
            (logits[y == c] - GOLDEN["fit.openmax_euclid.centers"][c])
            .norm(dim=1)
            .sort(descending=True)
            .values[:20]
        )
        assert tail[-1] == pytest.approx(least.item(), rel=1e-6)
        assert weibull(tail - tail[-1] + 10_000) == pytest.approx((shape.item(), scale.item()), rel=1e-4)


def test_openmax_scores_a_row_alone_as_among_others() -> None:
    """The peer measures distances only to classes that its batch predicts."""
    detector = registry.make("detectors", "openmax").fit(
        Output(logits_BC=IN["logits_fit"], z_BF=IN["z_fit"]), IN["y_fit"]
    )
    whole = detector.score(Output(logits_BC=IN["logits"], z_BF=IN["z"]))
    rows = [detector.score(Output(logits_BC=row[None], z_BF=IN["z"][:1])) for row in IN["logits"]]
    torch.testing.assert_close(torch.cat(rows), whole)
