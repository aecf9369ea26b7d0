"""How often a guard keeps its guarantee: 100 random halves of a run's ID test images, one to calibrate on and
one to measure the rate of flagged images on.

python experiments/guard.py RUN
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch

from oodream import Extractor, Run
from oodream.core.registry import make
from oodream.data.inputs import DataInputs
from oodream.runtime.calibration import calibrate

ALPHA, SPLITS = 0.05, 100
DETECTORS = ("energy", "knn", "mahalanobis", "vim")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    inputs, classifier = DataInputs(run.config), run.classifier()
    extractor = Extractor(classifier.network, loss=classifier.loss, cache=run.layout.cache)
    print("| detector | guarantee | mean rate, % | splits above 5 % |\n|---|---|---|---|")
    for name in DETECTORS:
        detector = make("detectors", name)
        detector.fit(extractor(inputs.train), inputs.train.labels, extractor.head)
        score_N = detector.score(extractor(inputs.test))
        for confidence, guarantee in ((0.95, "95 % confidence"), (None, "on average")):
            rates = []
            for split in range(SPLITS):
                order = torch.randperm(len(score_N), generator=torch.Generator().manual_seed(split))
                first, second = (score_N[rows] for rows in order.tensor_split(2))
                threshold = calibrate(first, ALPHA, confidence)[0]
                rates.append((second > threshold).double().mean().item())
            above = sum(rate > ALPHA for rate in rates)
            print(f"| `{name}` | {guarantee} | {100 * fmean(rates):.1f} | {above} of {SPLITS} |")


if __name__ == "__main__":
    main()
