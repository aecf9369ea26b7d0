"""Ten detectors on one ResNet-18 (32 px, random weights) against pytorch-ood: 2,000 training, 1,000 ID and 6 x 1,000 OOD images.

python benchmarks/evaluate.py

The same network, images and options, in the same run: ours, pytorch-ood 0.4.0 detector by detector as its documentation shows, and
its own cached benchmark. Without pytorch-ood (pip install pytorch-ood==0.4.0 torchvision, in an environment whose torch and
torchvision belong together) ours alone is timed. AUROCs must agree; ASH keeps 35 % of the features in both.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.holdout import shuffled
from oodream.data.images import from_array
from oodream.data.inputs import DataInputs
from oodream.detection.evaluate import evaluate
from oodream.models.factory import backbone
from oodream.presets import PRESETS

sys.path.insert(0, str(Path(__file__).parent))
N_TRAIN, N = 2000, 1000
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


def main() -> None:
    given = DataInputs(PRESETS["demo"].config)
    train, test = (images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n])
                   for images, n in zip(given.data, (N_TRAIN, N), strict=True))  # fmt: skip
    ood = {
        name: (group, images.subset(torch.arange(N)))
        for name, (group, images) in given.ood.items()
        if len(images) >= N
    }
    tiles = shuffled(test.batch(range(N)), test.labels, torch.Generator().manual_seed(0))
    ood["shuffled"] = ("near", from_array("shuffled", tiles, test.labels, ()).as_ood())
    with seeded(0, "benchmark"):
        network = backbone("resnet18", 8).eval()

    def ours(resamples: int) -> tuple[float, dict[str, dict[str, float]]]:
        began = time.perf_counter()
        detectors = {name: make("detectors", name, **OPTIONS.get(name, {})) for name in NAMES}
        found = evaluate(network, detectors, fit=train, test=test, ood=ood, resamples=resamples)
        auroc: dict[str, dict[str, float]] = {name: {} for name in NAMES}
        for row in found.rows:
            if row.dataset != "mean":
                auroc[row.detector][row.dataset] = row.auroc
        return time.perf_counter() - began, auroc

    ours(resamples=0)  # warm
    seconds, auroc = ours(resamples=0)
    with_intervals, _ = ours(resamples=500)
    images = N_TRAIN + N + len(ood) * N
    print(
        f"ours: {seconds:.1f} s for {len(NAMES)} detectors and {len(ood)} OOD sets, {images:,} images through the network once"
    )
    print(f"ours with 500 bootstrap resamples behind every interval: {with_intervals:.1f} s")
    try:
        import pytorch_ood  # noqa: F401
    except ImportError:
        print("pytorch-ood is not installed here: nothing to compare with")
        return
    from _pytorch_ood import cached_benchmark, one_by_one

    pixels = {name: images.batch(range(N)) for name, (_, images) in ood.items()}
    sets = {
        "train": (train.batch(range(len(train))), train.labels),
        "test": (test.batch(range(N)), test.labels),
        **pixels,
    }
    for what, run in (("its own cached benchmark", cached_benchmark), ("detector by detector", one_by_one)):
        theirs, their_auroc = run(Plain(network), sets)
        apart = {
            name: max(abs(auroc[name][key] - float(value)) for key, value in their_auroc[name].items())
            for name in NAMES
        }
        print(
            f"pytorch-ood 0.4.0, {what}: {theirs:.1f} s, {theirs / seconds:.1f} times ours; largest difference of an AUROC:"
        )
        print("  " + ", ".join(f"{name} {most:.0e}" for name, most in apart.items()))


if __name__ == "__main__":
    main()
