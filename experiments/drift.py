"""Evidence of drift: false alarms over 10,000 looks at streams that do not drift, and how many scores of a
run it takes until a drift is seen.

python experiments/drift.py RUN
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oodream import Run
from oodream.core.tensors import load_tensors
from oodream.data.inputs import DataInputs
from oodream.runtime.calibration import Guarantee
from oodream.runtime.drift import Drift
from oodream.runtime.martingale import Martingale, bets, grow

LOOKS, STREAMS, DELTAS = 10_000, 1000, (0.05, 0.01)
REPEATS, HELD_OUT, WATCHED, CLEAR = 200, 1000, 500, 2.0
Floats = NDArray[np.float64]


def evidence(held_out_N: Floats, stream_M: Floats) -> float:
    """The least chance of a false alarm that is ever claimed, looking after every score."""
    return 10 ** -Martingale(score_N=held_out_N).add(stream_M).log10_highest


def held_out_fixed(held_out_N: Floats, stream_M: Floats) -> float:
    """The same bets at odds that the stream never joins."""
    gap_M = np.searchsorted(np.sort(held_out_N), stream_M)
    low_M = (len(held_out_N) - gap_M) / (len(held_out_N) + 1)
    factor_ME = bets(low_M, low_M + 1 / (len(held_out_N) + 1))
    return float(np.exp(-grow(np.full(factor_ME.shape[1], -np.inf), factor_ME, 0)[1].max()))


def one_look(held_out_N: Floats, stream_M: Floats) -> float:
    """The least `p_moved` of the summary for one look, looking after every hundred scores."""
    guarantee = Guarantee(alpha=0.05, confidence=None, n=len(held_out_N))
    drift = Drift(threshold=0.95, guarantee=guarantee, score_N=held_out_N, window=100)
    stretches = [drift.add(part).total for part in np.split(stream_M, LOOKS // 100)]
    return min(stretch.p_moved for stretch in stretches if stretch)


def false_alarms(look: Callable[[Floats, Floats], float], n: int) -> list[float]:
    """The share of streams with a false alarm, for each of DELTAS; only ranks count: scores are uniform."""
    least = []
    for stream in range(STREAMS):
        random = np.random.default_rng([n, stream])
        least.append(look(random.random(n), random.random(LOOKS)))
    return [float(np.mean(np.array(least) <= delta)) for delta in DELTAS]


def delay(held_out_N: Floats, before_M: Floats, after_M: Floats) -> float:
    """How many scores after the change it takes; infinite where no alarm comes, or one before the change."""
    martingale = Martingale(score_N=held_out_N).add(before_M)
    if martingale.log10_highest >= CLEAR:
        return float("inf")
    for n, score in enumerate(after_M, 1):
        if martingale.add(np.array([score])).log10_highest >= CLEAR:
            return n
    return float("inf")


def delays(known_N: Floats, strange_N: Floats, share: float, before: int) -> list[float]:
    """Of REPEATS orders of the known scores, of which HELD_OUT are held out and `before` come first; of the
    WATCHED ones that follow `share` are strange. None is there twice.
    """
    found = []
    for repeat in range(REPEATS):
        random = np.random.default_rng(repeat)
        known, strange = random.permutation(known_N), random.permutation(strange_N)
        is_strange = random.random(WATCHED) < share
        after = known[HELD_OUT + before :][:WATCHED].copy()
        after[is_strange] = strange[: is_strange.sum()]
        found.append(delay(known[:HELD_OUT], known[HELD_OUT : HELD_OUT + before], after))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    print(f"{STREAMS:,} streams of {LOOKS:,} scores, no drift\n")
    print("| held-out | test | streams with an alarm at 5 %, % | at 1 %, % |\n|---|---|---|---|")
    for n in (100, 2000):
        for look in (evidence, held_out_fixed, one_look):
            rates = " | ".join(f"{100 * rate:.1f}" for rate in false_alarms(look, n))
            print(f"| {n:,} | {look.__name__.replace('_', ' ')} | {rates} |", flush=True)
    print(f"\n{REPEATS} orders, {HELD_OUT:,} held-out scores, evidence {CLEAR:g}, {WATCHED} scores watched\n")
    print("| unknown pictures | share, % | known before | median delay | 90 % within | seen, % |")
    print("|---|---|---|---|---|---|")
    scores = {
        name: score_N.double().numpy()
        for name, score_N in load_tensors(run.layout.scores("regularized", 0, "energy")).items()
    }
    for images in DataInputs(run.config).ood:
        for share in (0.05, 0.1, 0.3, 1.0):
            for before in (0, 500):
                found = np.array(delays(scores["id"], scores[images.name], share, before))
                median, most = np.quantile(found, [0.5, 0.9], method="lower")
                seen = 100 * np.isfinite(found).mean()
                row = images.name, f"{100 * share:.0f}", before, f"{median:.0f}", f"{most:.0f}", f"{seen:.0f}"
                print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
