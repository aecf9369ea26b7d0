"""What costs no outlier: detectors on classifiers of known photographs alone, with plain and with
standardised features, on six choices of which four classes of CIFAR-10 are unknown.

    python experiments/no_outliers.py ROOT OUT

ROOT is a folder of CIFAR-10. OUT/CHOICE/BACKBONE are the runs, as far as their baselines; the same call again
goes on. What it prints is in percent: near AUROC by choice and its mean, the mean less that of the energy on
plain features, with its 95 % interval over the choices, and the near and far images accepted. Each number is
a mean of the trainings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import numpy as np

from oodream import Extractor, Run, evaluate
from oodream.functional.uncertainty import paired
from oodream.presets import SIX_VS_FOUR
from oodream.run.layout import BASELINE, classifier_stage

BACKBONES = "resnet8", "resnet8-z"
DETECTORS = ("energy", "energy_gen", "msp", "max_logit", "gen", "react", "ash", "scale", "vim", "knn",
             "nnguide", "fdbd", "mahalanobis", "relative_mahalanobis")  # fmt: skip
TRAINING = (
    "--max-per-class 1000 --regularize.loss vos --reconstruct.frac 0 --reconstruct.no-detail "
    "--reconstruct.no-twins --evaluate.n-far 500 --shift.n-corrupted 0"
).split()
"""that of the study; no outlier is drawn for the loss that it is not trained to"""


def train(choice: str, backbone: str, root: Path, folder: Path, seeds: int) -> Run:
    """The run of a choice of unknown classes, once its baselines are trained."""
    last = classifier_stage(BASELINE, seeds - 1)
    of_run = ["--preset", choice, "--root", str(root), "--run", str(folder), "--seeds", str(seeds)]
    words = ["run", *of_run, "--train.backbone", backbone, *TRAINING, "--until", last]
    subprocess.run([sys.executable, "-m", "oodream", *words], check=True)
    return Run.open(folder)


def measure(run: Run, seed: int) -> dict[str, list[float]]:
    """Near AUROC, near accepted and far accepted of each detector, in percent."""
    classifier, known = run.classifier(BASELINE, seed), run.inputs
    extractor = Extractor(classifier.network, loss=classifier.loss)
    found = evaluate(extractor, DETECTORS, fit=known.train, test=known.test, ood=known.ood)

    def mean(name: str, group: str, metric: str) -> float:
        sets = [row for row in found.rows if (row.detector, row.group) == (name, group)]
        return 100 * fmean(getattr(row, metric) for row in sets if row.dataset != group)

    columns = ("near", "auroc"), ("near", "fpr95_id"), ("far", "fpr95_id")
    return {name: [mean(name, *column) for column in columns] for name in found.scores}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    measured: dict[tuple[str, str], list[np.ndarray]] = {}
    for choice in SIX_VS_FOUR:
        for backbone in BACKBONES:
            run = train(choice, backbone, args.root, args.out / choice / backbone, args.seeds)
            by_seed = [measure(run, seed) for seed in range(args.seeds)]
            for name in by_seed[0]:
                table_S3 = np.array([values[name] for values in by_seed])
                measured.setdefault((backbone, name), []).append(table_S3.mean(0))
    energy_C = np.array(measured["resnet8", "energy"])[:, 0]
    print("| features | detector | near AUROC, % | mean | less the energy | near accepted | far accepted |")
    print("|---|---|---|---|---|---|---|")
    for (backbone, name), values in measured.items():
        near_C, accepted_C, far_C = np.array(values).T
        won = paired(energy_C, near_C)
        low, high = won.interval or (0.0, 0.0)
        by_choice = ", ".join(f"{value:.1f}" for value in near_C)
        print(
            f"| {backbone} | `{name}` | {by_choice} | {near_C.mean():.1f} | "
            f"{won.value:+.1f} ({low:+.1f} to {high:+.1f}) | "
            f"{accepted_C.mean():.1f} | {far_C.mean():.1f} |"
        )


if __name__ == "__main__":
    main()
