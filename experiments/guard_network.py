"""What `oodream guard` attains on real unknown pictures, and how often its promise is kept: it makes a guard
without them, measures it on folders of them, and takes the held-out images apart in 100 random halves, one to
calibrate on and one to measure the rate of flagged images on.

python experiments/guard_network.py --model M --data FOLDER --out FOLDER --ood near=FOLDER far=FOLDER

The options are those of `oodream guard`; --ood names what is measured and chooses nothing here.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from oodream.cli.console import parse
from oodream.cli.guard import GuardOptions, job_of, place_of
from oodream.core.registry import make
from oodream.data.folders import list_ood
from oodream.data.images import Images
from oodream.data.inputs import NamedFolder, named_folders
from oodream.detection.detectors import probes_of
from oodream.functional.metrics import auroc, fpr95_id
from oodream.functional.uncertainty import delong
from oodream.models.inference import PatientExtractor
from oodream.run.guard import guard_network
from oodream.run.guard_inputs import GuardInputs
from oodream.run.guard_page import Guarded
from oodream.runtime.calibration import calibrate

MOST, SPLITS = {"near": 2000, "far": 500}, 100


def main() -> None:
    command = parse(GuardOptions, "guard_network", sys.argv[1:])
    job = job_of(command, sys.argv[1:], Path(place_of(command.where)))
    folders = named_folders(job.ood, (), ("near", "far"))
    job = replace(job, ood=())
    made = guard_network(job)
    guard, size = made.guard, made.guard.size
    extractor = PatientExtractor(guard.network, cache=job.cache)
    fit, _, held_out = GuardInputs(job).known(size)
    unknown = {f"{item.name} ({item.group})": unknown_images(item, size) for item in folders}

    print("\n| detector | chosen on | " + " | ".join(unknown) + " |\n" + "|---" * (2 + len(unknown)) + "|")
    for one in made.choice.candidates:
        probes = probes_of([one.detector])
        known_N = one.detector.score(extractor(held_out, probes))
        cells = [cell(known_N, one.detector.score(extractor(images, probes))) for images in unknown.values()]
        print(f"| `{one.name}` | {100 * one.mean:.1f} | {' | '.join(cells)} |")
    for name, images in unknown.items():
        scores_M = guard.detector.score(extractor(images, probes_of([guard.detector])))
        area = delong(made.scores["held out"], scores_M)
        flagged = (scores_M > guard.threshold).double().mean().item()
        low, high = (100 * x for x in area.interval)
        print(
            f"{name}: AUROC {100 * area.value:.1f} ({low:.1f} to {high:.1f}), flagged {100 * flagged:.1f} %"
        )
    print("\n| detector | guarantee | mean rate, % | splits above |\n|---|---|---|---|")
    best = made.choice.best
    for name in dict.fromkeys((best.name, "energy", "knn")):
        detector = best.detector if name == best.name else make("detectors", name)
        detector.fit(extractor(fit), fit.labels, extractor.head)
        promise(name, detector.score(extractor(held_out)), made)


def unknown_images(item: NamedFolder, size: int) -> Images:
    """Pictures of a folder, drawn at random."""
    listing = list_ood(item.folder)
    order = torch.randperm(len(listing.rows), generator=torch.Generator().manual_seed(0))
    return listing.subset(order[: MOST[item.group]].sort().values.tolist()).read(size)


def cell(known_N: torch.Tensor, scores_M: torch.Tensor) -> str:
    return f"{100 * auroc(known_N, scores_M):.1f} / {100 * fpr95_id(known_N, scores_M):.1f}"


def promise(name: str, score_N: torch.Tensor, made: Guarded) -> None:
    """The rate of flagged images in one half at a threshold from the other, over random halves."""
    alpha = made.guard.guarantee.alpha
    for confidence, guarantee in ((0.95, "95 % confidence"), (None, "on average")):
        rates = []
        for split in range(SPLITS):
            order = torch.randperm(len(score_N), generator=torch.Generator().manual_seed(split))
            first, second = (score_N[rows] for rows in order.tensor_split(2))
            rates.append((second > calibrate(first, alpha, confidence)[0]).double().mean().item())
        above = sum(rate > alpha for rate in rates)
        print(f"| `{name}` | {guarantee} | {100 * fmean(rates):.1f} | {above} of {SPLITS} |")


if __name__ == "__main__":
    main()
