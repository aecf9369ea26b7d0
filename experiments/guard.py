"""How often a guard's promise is kept: 100 random halves of a run's known test images, one to calibrate on and one to watch.

python experiments/guard.py RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch

from oodream.config import Config
from oodream.core.files import read_json
from oodream.core.options import overlay
from oodream.core.registry import make
from oodream.data.inputs import DataInputs
from oodream.functional.calibration import calibrate
from oodream.models.classifier import load
from oodream.models.inference import head_of, outputs

ALPHA, SPLITS = 0.05, 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    fit, test = DataInputs(overlay(Config(), read_json(run / "run.json")["config"])).data
    found, cpu = load(run / "classifier" / "dream-s0"), torch.device("cpu")
    print("| detector | promise | mean rate, % | splits above 5 % |\n|---|---|---|---|")
    for name in ("energy", "knn", "mahalanobis", "vim"):
        detector = make("detectors", name)
        detector.fit(
            outputs(found.network, fit, cpu, cache=run / "cache"),
            fit.labels,
            head_of(found.network, found.loss),
        )
        score_N = detector.score(outputs(found.network, test, cpu, cache=run / "cache"))
        for confidence, promise in ((0.95, "95 % confidence"), (None, "on average")):
            rates = []
            for split in range(SPLITS):
                order = torch.randperm(len(score_N), generator=torch.Generator().manual_seed(split))
                first, second = (score_N[rows] for rows in order.tensor_split(2))
                rates.append((second > calibrate(first, ALPHA, confidence)[0]).double().mean().item())
            print(
                f"| `{name}` | {promise} | {100 * fmean(rates):.1f} | {sum(rate > ALPHA for rate in rates)} of {SPLITS} |"
            )


if __name__ == "__main__":
    main()
