"""A stream's summary against scipy's tests, however the stream is cut; and what it says."""

from __future__ import annotations

import pickle

import pytest
import torch
from scipy.stats import binomtest, ks_2samp

from oodream.runtime.calibration import Guarantee
from oodream.runtime.drift import Drift
from oodream.runtime.martingale import Martingale

N = 400


def scores(n: int, seed: int, shift: float = 0.0, levels: int = 0):
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift
    return (values * levels).round() / levels if levels else values


def drift(held_out, window: int = 1000, alpha: float = 0.05) -> Drift:
    threshold = held_out.sort().values[int(0.95 * len(held_out))].item()
    return Drift(
        threshold=threshold,
        guarantee=Guarantee(alpha=alpha, confidence=0.95, n=len(held_out)),
        score_N=held_out,
        window=window,
    )


@pytest.mark.parametrize("levels", [0, 1, 3])
@pytest.mark.parametrize("shift", [0.0, 0.3, 5.0, -5.0])
def test_every_number_is_scipys(levels, shift):
    held_out, stream = scores(N, 0, levels=levels), scores(300, 1, shift, levels)
    watched = drift(held_out).add(stream)
    total = watched.total
    flagged = int((stream > watched.threshold).sum())
    assert (total.n, total.flagged, total.share) == (300, flagged, flagged / 300)
    assert total.p_more == pytest.approx(
        binomtest(flagged, 300, 0.05, alternative="greater").pvalue, rel=1e-9, abs=1e-300
    )
    assert total.distance == pytest.approx(ks_2samp(held_out, stream).statistic, abs=1e-12)
    assert total.p_moved == pytest.approx(ks_2samp(held_out, stream, method="asymp").pvalue, abs=0.03)
    wilson = binomtest(flagged, 300).proportion_ci(method="wilson")
    assert total.interval == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_how_the_stream_is_cut_makes_no_difference():
    stream = scores(2500, 3, 0.1)
    whole, parts = drift(scores(N, 0)).add(stream), drift(scores(N, 0))
    for part in stream.split(7):
        parts.add(part)
    assert whole.total == parts.total
    assert whole.latest == parts.latest
    assert whole.latest == drift(scores(N, 0)).add(stream[-1000:]).total
    assert str(whole) == str(parts)
    assert parts.evidence == pytest.approx(whole.evidence, abs=1e-9)


def test_the_evidence_is_the_martingales_and_never_falls():
    held_out, watched, seen = scores(N, 0), drift(scores(N, 0)), [0.0]
    assert watched.evidence == 0.0
    for part in torch.cat([scores(300, 1), scores(100, 2, 1.0), scores(3000, 3)]).split(50):
        seen.append(watched.add(part).evidence)
    assert seen == sorted(seen)
    assert seen[6] < 1 < 2 < seen[8]
    martingale = Martingale(score_N=held_out.numpy())
    martingale.add(torch.cat([scores(300, 1), scores(100, 2, 1.0), scores(3000, 3)]).numpy())
    assert watched.evidence == pytest.approx(martingale.log10_highest, abs=1e-9)
    assert martingale.log10_wealth < martingale.log10_highest
    assert "a drift (evidence" in str(watched)
    assert "no clear drift (evidence" in str(drift(held_out).add(scores(300, 1)))


def test_the_window_sees_a_change_that_the_whole_stream_hides():
    watched = drift(scores(N, 0), window=200)
    for i in range(50):
        watched.add(scores(100, 100 + i))
    assert watched.total.p_moved > 0.01
    watched.add(scores(200, 4, 1.0))
    assert watched.latest.n == 200
    assert watched.latest.p_moved < 1e-6 < watched.total.p_moved
    assert ": more than guaranteed" in str(watched.latest)
    assert "the scores have moved" in str(watched.latest)
    assert "the scores have not moved" in str(watched.total)


def test_memory_does_not_grow():
    watched = drift(scores(N, 0), window=50).add(scores(100, 5))
    size = len(pickle.dumps(watched))
    for i in range(100):
        watched.add(scores(100, i))
    assert watched.total.n == 10_100
    assert len(pickle.dumps(watched)) <= 1.01 * size


def test_alarms_of_known_images_are_as_rare_as_the_p_value_says():
    held_out = scores(5000, 6)
    p = [drift(held_out).add(scores(300, 1000 + i)).total for i in range(200)]
    # Both are of discrete or fixed comparisons: 1 % is an upper bound, up to the held-out scores' luck.
    assert sum(s.p_more < 0.01 for s in p) <= 8
    assert sum(s.p_moved < 0.01 for s in p) <= 8


def test_words_before_and_after_the_first_score():
    watched = drift(scores(N, 0))
    assert watched.total is None
    assert watched.latest is None
    assert str(watched) == f"No scores yet. Guaranteed: {watched.guarantee}."
    assert watched.add(torch.zeros(0)).total is None
    lines = str(watched.add(scores(1200, 8))).splitlines()
    assert lines[0].startswith("Guaranteed: at most 5.00%")
    assert lines[1].startswith("All:    1,200 scores, ")
    assert lines[2].startswith("Latest: 1,000 scores, ")
    assert lines[3].startswith("Ever:   no clear drift (evidence 0.")


def test_what_is_refused():
    watched = drift(scores(N, 0))
    for bad in (torch.tensor([0.0, torch.nan]), torch.tensor([torch.inf]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="finite numbers"):
            watched.add(bad)
    assert watched.total is None
    with pytest.raises(ValueError, match="window is at least one"):
        drift(scores(N, 0), window=0)
