"""Ten detectors on one ResNet-18 (32 px, random weights): 2,000 training, 1,000 ID and 6 x 1,000 OOD images.

Timed in the same run: the network alone, oodream's evaluation, and pytorch-ood 0.4.0 with the same options,
detector by detector as its documentation shows, and by its own cached benchmark. Without pytorch-ood (pip
install pytorch-ood==0.4.0 torchvision, in an environment whose torch and torchvision belong together) the
network alone is the reference. AUROCs must agree; ASH keeps 35 % of the features in both.

python benchmarks/evaluate.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.holdout import shuffled
from oodream.data.images import Images, ImageSet, from_array
from oodream.data.inputs import DataInputs
from oodream.detection.evaluate import evaluate
from oodream.models.factory import backbone
from oodream.models.inference import Extractor
from oodream.presets import PRESETS

sys.path.insert(0, str(Path(__file__).parent))
N_TRAIN, N, BATCH = 2000, 1000, 32
OPTIONS = {
    "gen": {"gamma": 0.1},
    "knn": {"k": 50},
    "react": {"percentile": 0.9},
    "ash": {"variant": "s", "percentile": 0.65},
}
NAMES = ("msp", "max_logit", "energy", "entropy", "gen", "knn", "mahalanobis", "vim", "react", "ash")


class Plain(nn.Module):
    """The network as the peer takes it: logits of images, with `features` and `head`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, network.head

    def features(self, images_B3HW: Tensor) -> Tensor:
        return self.network(images_B3HW).z_BF

    def forward(self, images_B3HW: Tensor) -> Tensor:
        return self.network(images_B3HW).logits_BC


def image_sets() -> tuple[Images, Images, list[ImageSet]]:
    """Training images, ID test images and OOD sets, drawn from the demo's data."""
    inputs = DataInputs(PRESETS["demo"].config)
    train, test = (
        images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n])
        for images, n in ((inputs.train, N_TRAIN), (inputs.test, N))
    )
    ood = [replace(s, images=s.images.subset(torch.arange(N))) for s in inputs.ood if len(s.images) >= N]
    tiles = shuffled(test.batch(range(N)), test.labels, torch.Generator().manual_seed(0))
    images = from_array("shuffled", tiles, test.labels, ()).as_ood()
    return train, test, [*ood, ImageSet(name="shuffled", group="near", images=images)]


def ours(
    network: nn.Module, train: Images, test: Images, ood: Sequence[ImageSet], resamples: int
) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds, and the AUROC by detector and OOD set."""
    began = time.perf_counter()
    detectors = {name: make("detectors", name, **OPTIONS.get(name, {})) for name in NAMES}
    extractor = Extractor(network)
    evaluation = evaluate(extractor, detectors, fit=train, test=test, ood=ood, resamples=resamples)
    auroc: dict[str, dict[str, float]] = {name: {} for name in NAMES}
    for row in evaluation.rows:
        if row.dataset != "mean":
            auroc[row.detector][row.dataset] = row.auroc
    return time.perf_counter() - began, auroc


@torch.no_grad()
def network_alone(network: nn.Module, sets: Sequence[Images]) -> float:
    """Seconds that the network takes for every image once."""
    began = time.perf_counter()
    for images in sets:
        for batch, _ in images.batches(BATCH):
            network(batch)
    return time.perf_counter() - began


def main() -> None:
    train, test, ood = image_sets()
    with seeded(0, "benchmark"):
        network = backbone("resnet18", 8).eval()
    network_alone(network, [train.subset(torch.arange(2 * BATCH))])  # warm
    alone = network_alone(network, [train, test, *(s.images for s in ood)])
    print(f"{N_TRAIN + N + len(ood) * N:,} images through the network once: {alone:.1f} s", flush=True)
    seconds, auroc = ours(network, train, test, ood, resamples=0)
    print(
        f"oodream, {len(NAMES)} detectors on {len(ood)} OOD sets: {seconds:.1f} s, "
        f"{seconds / alone:.2f} times the network alone",
        flush=True,
    )
    with_intervals, _ = ours(network, train, test, ood, resamples=500)
    print(
        f"with 500 bootstrap resamples behind every interval: {with_intervals:.1f} s, "
        f"{with_intervals / alone:.2f} times"
    )
    try:
        import pytorch_ood  # noqa: F401
    except ImportError:
        print("pytorch-ood is not installed here: the network alone is the reference")
        return
    from _pytorch_ood import cached_benchmark, one_by_one

    sets = {
        "train": (train.batch(range(len(train))), train.labels),
        "test": (test.batch(range(N)), test.labels),
        **{s.name: s.images.batch(range(N)) for s in ood},
    }
    for what, run in (("its own cached benchmark", cached_benchmark), ("detector by detector", one_by_one)):
        theirs, their_auroc = run(Plain(network), sets)
        differences = {
            name: max(abs(auroc[name][key] - float(value)) for key, value in their_auroc[name].items())
            for name in NAMES
        }
        print(
            f"pytorch-ood 0.4.0, {what}: {theirs:.1f} s: oodream is {theirs / seconds:.1f} times as fast; "
            "largest difference of an AUROC:"
        )
        print("  " + ", ".join(f"{name} {difference:.0e}" for name, difference in differences.items()))


if __name__ == "__main__":
    main()
