"""How often a guard keeps its guarantees: 100 random halves of a run's ID test images, one to calibrate on
and one to watch the rate of flagged images on; then class by class, with what is flagged of the OOD sets;
then prediction sets.

python experiments/guard.py RUN
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from oodream import Extractor, Run
from oodream.core.registry import make
from oodream.core.types import Detector
from oodream.data.inputs import DataInputs
from oodream.runtime.calibration import calibrate
from oodream.runtime.held_out import HeldOut
from oodream.runtime.prediction_sets import METHODS, prediction_sets, set_limit, standing

ALPHA, SPLITS = 0.05, 100
DETECTORS = ("energy", "knn", "mahalanobis", "vim")


def halves(n: int) -> Iterator[tuple[Tensor, ...]]:
    """SPLITS random halves of n rows."""
    for split in range(SPLITS):
        yield torch.randperm(n, generator=torch.Generator().manual_seed(split)).tensor_split(2)


def common(score_N: Tensor, name: str) -> None:
    """One threshold for all."""
    for confidence, guarantee in ((0.95, "95 % confidence"), (None, "on average")):
        rates = []
        for first, second in halves(len(score_N)):
            threshold = calibrate(score_N[first], ALPHA, confidence)[0]
            rates.append((score_N[second] > threshold).double().mean().item())
        above = sum(rate > ALPHA for rate in rates)
        print(f"| `{name}` | {guarantee} | {100 * fmean(rates):.1f} | {above} of {SPLITS} |")


def by_class(detector: Detector, name: str, names: tuple[str, ...], extractor: Extractor, inputs: DataInputs):
    """One threshold for all beside one for each class, both on average."""
    output = extractor(inputs.test)
    score_N, class_N = detector.score(output), output.logits_BC.argmax(1)
    ood = {group: [] for group in ("near", "far")}
    for images in inputs.ood:
        other = extractor(images.images)
        ood[images.group].append((detector.score(other), other.logits_BC.argmax(1)))
    rows: dict[str, list[list[float]]] = {"one for all": [], "one for each class": []}
    for first, second in halves(len(score_N)):
        held_out = HeldOut.of(score_N[first], output.logits_BC[first], None)
        threshold, guarantee = held_out.calibrate(ALPHA, None, names)
        own_C = torch.tensor(
            [
                threshold if name in guarantee.too_few else held_out.threshold(c, guarantee)
                for c, name in enumerate(names)
            ]
        )
        for kind, limit_C in zip(rows, (torch.full_like(own_C, threshold), own_C), strict=True):
            flagged = (score_N > limit_C[class_N])[second].double()
            rates = [flagged[class_N[second] == c].mean().item() for c in range(len(names))]
            strange = [
                fmean((score > limit_C[taken]).double().mean().item() for score, taken in ood[group])
                for group in ood
            ]
            rows[kind].append([flagged.mean().item(), *strange, *rates])
    for kind, found in rows.items():
        known, near, far, *rates = (100 * torch.tensor(found).nanmean(0)).tolist()
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        print(f"| `{name}` | {kind} | {known:.1f} | {spread} | {near:.1f} | {far:.1f} |")


def sets(logits_NC: Tensor, y_N: Tensor) -> None:
    """How often a set misses the true class, and how large it is."""
    for alpha in (0.1, 0.05, 0.02):
        for method in METHODS:
            missing, sizes = [], []
            for first, second in halves(len(y_N)):
                limit = set_limit(standing(logits_NC[first], y_N[first]), alpha, method)
                found = prediction_sets(logits_NC[second], limit, method)
                missing.append(
                    fmean(y not in x.tolist() for y, x in zip(y_N[second].tolist(), found, strict=True))
                )
                sizes.append(fmean(map(len, found)))
            print(f"| {100 * alpha:.0f} | `{method}` | {100 * fmean(missing):.1f} | {fmean(sizes):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    inputs, classifier = DataInputs(run.config), run.classifier()
    extractor = Extractor(classifier.network, loss=classifier.loss, cache=run.layout.cache)
    detectors = {name: make("detectors", name) for name in DETECTORS}
    for detector in detectors.values():
        detector.fit(extractor(inputs.train), inputs.train.labels, extractor.head)
    print("| detector | guarantee | mean rate, % | splits above 5 % |\n|---|---|---|---|")
    for name, detector in detectors.items():
        common(detector.score(extractor(inputs.test)), name)
    print("\n| detector | threshold | known flagged, % | by class, % | near flagged, % | far flagged, % |")
    print("|---|---|---|---|---|---|")
    for name, detector in detectors.items():
        by_class(detector, name, classifier.names, extractor, inputs)
    print("\n| alpha, % | method | true class missing, % | mean size |\n|---|---|---|---|")
    sets(extractor(inputs.test).logits_BC, inputs.test.labels)


if __name__ == "__main__":
    main()
