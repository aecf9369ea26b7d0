"""Metrics on two million scores, and 500 bootstrap resamples of ten thousand, against scikit-learn in the
same run.

python benchmarks/metrics.py
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from _bench import Row, Setting, alone, bandwidth, turns
from sklearn.metrics import average_precision_score, roc_auc_score

from oodream.functional.metrics import bootstrap, measure

__all__ = ["LINES"]


def metrics(setting: Setting) -> Iterator[Row]:
    """Long because the peer's two programs are written out."""
    n, few = setting.pick(cpu=1_000_000, cuda=1_000_000, tiny=10_000), setting.pick(5000, 5000, 500)
    g = torch.Generator().manual_seed(0)
    id, ood = (torch.randn(n, generator=g, dtype=torch.float64) + shift for shift in (0.0, 1.0))
    scores, truth = torch.cat([id, ood]).numpy(), np.repeat([0, 1], n)

    def sklearn() -> None:
        roc_auc_score(truth, scores)
        average_precision_score(truth, scores)
        average_precision_score(1 - truth, -scores)

    cpu, rounds = torch.device("cpu"), setting.pick(3, 3, 1)
    times = turns({"ours": lambda: measure(id, ood), "theirs": sklearn}, rounds, cpu)
    yield Row(
        what=f"five metrics of {2 * n:,} scores", value=times["ours"], unit="s",
        reference="scikit-learn, three metrics", ratio=times["theirs"] / times["ours"],
        floor=f"{2 * id.nbytes / 1e6:.0f} MB of scores, read once",
        share=2 * id.nbytes / bandwidth(cpu) / times["ours"],
    )  # fmt: skip
    few_id, few_ood = id[:few], ood[:few]
    part, label = np.concatenate([few_id.numpy(), few_ood.numpy()]), np.repeat([0, 1], few)

    def resample() -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            rows = np.concatenate([rng.integers(0, few, few), rng.integers(few, 2 * few, few)])
            roc_auc_score(label[rows], part[rows])

    resamples = setting.pick(500, 500, 20)
    times = turns(
        {"ours": lambda: bootstrap(few_id, few_ood, seed=0, resamples=resamples), "theirs": resample},
        rounds,
        cpu,
    )
    ours, theirs = times["ours"] / resamples, times["theirs"] / 20
    yield Row(
        what=f"five metrics of a bootstrap resample of {2 * few:,} scores", value=1e3 * ours, unit="ms",
        reference="scikit-learn, one metric", ratio=theirs / ours,
        floor=f"{2 * few_id.nbytes / 1e3:.0f} kB of scores, read once",
        share=2 * few_id.nbytes / bandwidth(cpu) / ours,
    )  # fmt: skip


LINES = {"metrics": metrics}

if __name__ == "__main__":
    alone(LINES)
