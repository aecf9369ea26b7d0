"""Metrics on two million scores, and 500 bootstrap resamples of ten thousand, against scikit-learn in the
same run.

python benchmarks/metrics.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from oodream.functional.metrics import bootstrap, measure


def clock(work: Callable[[], object]) -> float:
    """Seconds of the best of three calls."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    g = torch.Generator().manual_seed(0)
    id, ood = (torch.randn(1_000_000, generator=g, dtype=torch.float64) + shift for shift in (0.0, 1.0))
    scores, truth = torch.cat([id, ood]).numpy(), np.repeat([0, 1], 1_000_000)

    def sklearn() -> None:
        roc_auc_score(truth, scores)
        average_precision_score(truth, scores)
        average_precision_score(1 - truth, -scores)

    ours, theirs = clock(lambda: measure(id, ood)), clock(sklearn)
    print(
        f"2,000,000 scores: oodream {ours:.2f} s for five metrics, scikit-learn {theirs:.2f} s for three: "
        f"oodream is {theirs / ours:.1f} times as fast"
    )

    few_id, few_ood = id[:5000], ood[:5000]
    part = np.concatenate([few_id.numpy(), few_ood.numpy()])
    label = np.repeat([0, 1], 5000)

    def resample() -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            rows = np.concatenate([rng.integers(0, 5000, 5000), rng.integers(5000, 10000, 5000)])
            roc_auc_score(label[rows], part[rows])

    ours, theirs = (
        clock(lambda: bootstrap(few_id, few_ood, seed=0, resamples=500)) / 500,
        clock(resample) / 20,
    )
    print(
        f"a resample of 10,000 scores: oodream {1e3 * ours:.2f} ms for five metrics, scikit-learn "
        f"{1e3 * theirs:.2f} ms for one: oodream is {theirs / ours:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
