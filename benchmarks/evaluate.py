"""Ten detectors on one network with random weights, against the network alone and against pytorch-ood 0.4.0.

On a CPU: a ResNet-18 of 32 pixels, 1,000 training, 500 ID and 7 x 500 OOD images. pytorch-ood has the
same options, detector by detector as its documentation shows, and by its own cached benchmark; without it
(pip install pytorch-ood==0.4.0 torchvision, in an environment whose torch and torchvision belong together)
the network alone is the reference, and the first row says so. AUROCs must agree; ASH keeps 35 % of the
features in both. On a GPU: a ResNet-50 of 224 pixels with 1,000 classes, 2,000 training, 1,000 ID and
3 x 1,000 OOD images, and the network alone.

python benchmarks/evaluate.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from _bench import Row, Setting, alone, clock, flops, profiled
from torch import Tensor, nn

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.data.holdout import shuffled
from oodream.data.images import Images, ImageSet, from_array
from oodream.data.inputs import DataInputs
from oodream.detection.evaluate import evaluate
from oodream.models.factory import backbone
from oodream.models.inference import Extractor, cost
from oodream.presets import PRESETS

__all__ = ["LINES"]

BATCH = 32  # the fastest of the network alone on a CPU
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


def image_sets(n_train: int, n: int) -> tuple[Images, Images, list[ImageSet]]:
    """Training images, ID test images and OOD sets, drawn from the demo's data."""
    inputs = DataInputs(PRESETS["demo"].config)
    train, test = (
        images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:m])
        for images, m in ((inputs.train, n_train), (inputs.test, n))
    )
    ood = [replace(s, images=s.images.subset(torch.arange(n))) for s in inputs.ood if len(s.images) >= n]
    tiles = shuffled(test.batch(range(n)), test.labels, torch.Generator().manual_seed(0))
    images = from_array("shuffled", tiles, test.labels, ()).as_ood()
    return train, test, [*ood, ImageSet(name="shuffled", group="near", images=images)]


def noise_sets(
    n_train: int, n: int, sets: int, size: int, classes: int
) -> tuple[Images, Images, list[ImageSet]]:
    """The same of colours and noise: of these only the number counts."""

    def images(name: str, n: int, seed: int) -> Images:
        g = torch.Generator().manual_seed(seed)
        colours = torch.randint(0, 236, (n, 3, 1, 1), generator=g, dtype=torch.uint8)
        noise = torch.randint(0, 20, (64, 3, size, size), generator=g, dtype=torch.uint8)
        pixels = colours + noise[torch.arange(n) % 64]
        return from_array(name, pixels, torch.arange(n) % classes, [str(c) for c in range(classes)])

    ood = [
        ImageSet(name=f"far {i}", group="far", images=images(f"far {i}", n, 2 + i).as_ood())
        for i in range(sets)
    ]
    return images("train", n_train, 0), images("test", n, 1), ood


def ours(
    network: nn.Module,
    train: Images,
    test: Images,
    ood: Sequence[ImageSet],
    resamples: int,
    device: torch.device,
) -> tuple[float, dict[str, dict[str, float]]]:
    """float, and the AUROC by detector and OOD set."""
    auroc: dict[str, dict[str, float]] = {name: {} for name in NAMES}

    def work() -> None:
        detectors = {name: make("detectors", name, **OPTIONS.get(name, {})) for name in NAMES}
        extractor = Extractor(network, device=device)
        evaluation = evaluate(extractor, detectors, fit=train, test=test, ood=ood, resamples=resamples)
        for row in evaluation.rows:
            if row.dataset != "mean":
                auroc[row.detector][row.dataset] = row.auroc

    return clock(work, device), auroc


@torch.no_grad()
def network_alone(network: nn.Module, sets: Sequence[Images], batch: int, device: torch.device) -> None:
    """Every image through the network once."""
    for images in sets:
        for pixels, _ in images.batches(batch):
            network(pixels.to(device))


def evaluation(setting: Setting) -> Iterator[Row]:
    device = setting.device
    name, size, classes, batch, n_train, n, sets = setting.pick(
        ("resnet18", 32, 8, BATCH, 1000, 500, 0),
        ("resnet50-224", 224, 1000, 512, 2_000, 1_000, 3),
        ("resnet8", 32, 8, BATCH, 200, 100, 2),
    )
    train, test, ood = noise_sets(n_train, n, sets, size, classes) if sets else image_sets(n_train, n)
    with seeded(0, "benchmark"):
        network = backbone(name, classes).eval().to(device)
    total = len(train) + len(test) + sum(len(s.images) for s in ood)
    network_alone(
        network, [train.subset(torch.arange(2 * batch).clamp(max=len(train) - 1))], batch, device
    )  # warm
    few = train.subset(torch.arange(min(len(train), max(classes, 100))))
    ours(network, few, few, [replace(ood[0], images=few.as_ood())], 0, device)  # imports, too
    every = [train, test, *(s.images for s in ood)]
    floor = clock(partial(network_alone, network, every, batch, device), device)
    seconds, auroc = ours(network, train, test, ood, 0, device)
    operations = cost(network, size)[1]
    kind = "TF32" if setting.cuda else "float32"
    common = {
        "unit": "images a second",
        "floor": f"{operations / 1e9:.3g} GFLOP an image, as {kind} matrix products",
    }
    limit = flops(device, torch.float32, convolution=True) / operations
    yield Row(
        what=f"{len(NAMES)} detectors, {len(ood)} OOD sets, {name}, {size} px",
        value=total / seconds,
        reference="the network alone",
        ratio=floor / seconds,
        share=total / seconds / limit,
        more="" if setting.cuda or setting.tiny else without_peer(),
        **common,
    )
    with_intervals, _ = ours(network, train, test, ood, 500, device)
    yield Row(
        what="the same, 500 bootstrap resamples behind every interval",
        value=total / with_intervals,
        reference="the network alone",
        ratio=floor / with_intervals,
        share=total / with_intervals / limit,
        **common,
    )
    if setting.cuda or setting.tiny:
        fewer = train.subset(torch.arange(len(train) // 2))
        profiled("evaluation", lambda: ours(network, fewer, test, ood[:1], 0, device), setting)
    elif not without_peer():
        yield from peers(network, train, test, ood, n, seconds, auroc)


def without_peer() -> str:
    """Why pytorch-ood is not measured beside; nothing where it is."""
    try:
        import pytorch_ood.benchmark  # noqa: F401
    except (ImportError, RuntimeError) as error:  # a torchvision that was built for another PyTorch
        return f"without pytorch-ood, which cannot be imported: {type(error).__name__}"
    return ""


def peers(
    network: nn.Module,
    train: Images,
    test: Images,
    ood: Sequence[ImageSet],
    n: int,
    seconds: float,
    auroc: dict[str, dict[str, float]],
) -> Iterator[Row]:
    """pytorch-ood's times."""
    from _pytorch_ood import cached_benchmark, one_by_one

    sets = {
        "train": (train.batch(range(len(train))), train.labels),
        "test": (test.batch(range(n)), test.labels),
        **{s.name: s.images.batch(range(n)) for s in ood},
    }
    for what, run in (("its own cached benchmark", cached_benchmark), ("detector by detector", one_by_one)):
        theirs, their_auroc = run(Plain(network), sets)
        difference = max(
            abs(auroc[name][key] - float(value)) for name in NAMES for key, value in their_auroc[name].items()
        )
        yield Row(
            what=f"the same detectors, largest difference of an AUROC {difference:.0e}",
            value=seconds,
            unit="s",
            reference=f"pytorch-ood 0.4.0, {what}",
            ratio=theirs / seconds,
        )


LINES = {"evaluation": evaluation}

if __name__ == "__main__":
    alone(LINES)
