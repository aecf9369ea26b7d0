"""The peer's half of a comparison of evaluations: ten detectors of pytorch-ood 0.4.0, one ID test set, any
number of OOD sets.

`model` maps uint8 images to logits and has `features(images)` (B, F) and a linear `head`; it is on the CPU,
in evaluation mode. `sets` has by name "train" and "test" as (images, labels), and every OOD set as images:
tensors in memory, images uint8. Both functions return seconds of the processor and the AUROC by detector and
OOD set. What the peer need not pay for is kept from it: its loaders hand out slices of these tensors,
imports, constructors and joining sets are not timed, and no gradients are kept. The peer is imported when a
function is called.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH = 32  # the fastest here, for the peer as for us
Sets = Mapping[str, Any]
Auroc = dict[str, dict[str, float]]


class Slices(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels that a loader with `collate_fn=whole` takes a batch at a time."""

    def __init__(self, images_N3HW: Tensor, y_N: Tensor) -> None:
        self.images_N3HW, self.y_N = images_N3HW, y_N

    def __len__(self) -> int:
        return len(self.y_N)

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return self.images_N3HW[rows], self.y_N[rows]


def whole(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


LOADER: dict[str, Any] = {"batch_size": BATCH, "collate_fn": whole}


def joined(sets: Sets) -> dict[str, Slices]:
    """Each OOD set, labelled -1, after the ID test set: what the peer's metrics and benchmarks expect."""
    images, y = sets["test"]
    return {
        name: Slices(torch.cat([images, ood]), torch.cat([y, y.new_full((len(ood),), -1)]))
        for name, ood in sets.items()
        if name not in ("train", "test")
    }


def detectors(model: Any) -> dict[str, Any]:
    """The ten detectors by oodream's names, each made as its documentation shows.

    ReAct and ASH work on maps before the head. They get pooled features as maps of one pixel, so that they
    mean what oodream's mean.
    """
    from pytorch_ood import detector as peers

    features = model.features  # one object: the peer's cache knows a network by its id
    head: nn.Linear = model.head
    maps = {
        "backbone": lambda images: features(images)[:, :, None, None],
        "head": lambda map_BF11: head(map_BF11.flatten(1)),
    }
    return {
        "msp": peers.MaxSoftmax(model),
        "max_logit": peers.MaxLogit(model),
        "energy": peers.EnergyBased(model),
        "entropy": peers.Entropy(model),
        "gen": peers.GEN(model, gamma=0.1),
        "knn": peers.KNN(features, k=50),
        "mahalanobis": peers.Mahalanobis(features),
        "vim": peers.ViM(features, d=head.in_features // 2, w=head.weight, b=head.bias),
        "react": peers.ReAct(**maps, percentile=0.9),
        "ash": peers.ASH(**maps, variant="ash-s", percentile=0.65),
    }


@torch.no_grad()
def one_by_one(model: nn.Module, sets: Sets) -> tuple[float, Auroc]:
    """The documented loop, a detector at a time: fit it on a loader, then feed OODMetrics from a loader of ID
    and OOD, set by set.

    KNN, Mahalanobis, ViM and ReAct each pass the training images through the network, and each of the ten
    passes the ID test set once for every OOD set.
    """
    from pytorch_ood.metrics import OODMetrics

    tests, ten = joined(sets), detectors(model)
    began = time.process_time()
    train = DataLoader(Slices(*sets["train"]), **LOADER)
    auroc: Auroc = {}
    for name, detector in ten.items():
        detector.fit(train)
        auroc[name] = {}
        for ood, test in tests.items():
            metrics = OODMetrics()
            for images, y in DataLoader(test, **LOADER):
                metrics.update(detector(images), y)
            auroc[name][ood] = metrics.compute()["AUROC"]
    return time.process_time() - began, auroc


@torch.no_grad()
def cached_benchmark(model: nn.Module, sets: Sets) -> tuple[float, Auroc]:
    """As much as the peer's public parts share: `extract_features` once for all fits, and
    `Benchmark.evaluate` on all ten at once.

    One pass over the training images serves `fit_features` of KNN, Mahalanobis and ViM, and
    `fit_feature_maps` of ReAct. `evaluate(..., cache=True)` then keeps, for each OOD set joined with the ID
    test set, one pass for the five detectors on logits and one for the three on features. It does not share
    these two, nor does it cache for ReAct and ASH, which each pass the images: four passes for each OOD set
    instead of ten, and the ID test set is still passed again for every OOD set.
    """
    from pytorch_ood.benchmark import Benchmark
    from pytorch_ood.utils import extract_features

    tests, ten = joined(sets), detectors(model)

    class InMemory(Benchmark):
        """The peer's benchmark over `sets`."""

        def __init__(self) -> None:
            self.ood_names = list(tests)

        def train_set(self) -> Slices:
            return Slices(*sets["train"])

        def test_sets(self, known: bool = True, unknown: bool = True) -> list[Slices]:
            return list(tests.values())

    began = time.process_time()
    benchmark = InMemory()
    z_NF, y_N = extract_features(DataLoader(benchmark.train_set(), **LOADER), model.features, "cpu")
    for name in ("knn", "mahalanobis", "vim"):
        ten[name].fit_features(z_NF, y_N)
    ten["react"].fit_feature_maps(z_NF[:, :, None, None], y_N)
    rows = benchmark.evaluate(list(ten.values()), loader_kwargs=LOADER, device="cpu", cache=True)
    auroc: Auroc = {name: {} for name in ten}
    by_class = {type(detector).__name__: name for name, detector in ten.items()}
    for row in rows:
        auroc[by_class[row["Detector"]]][row["Dataset"]] = row["AUROC"]
    return time.process_time() - began, auroc
