"""The verb that measures: one classifier, ID and OOD images in, rows of numbers with intervals out.

The network runs once over each image set; every detector reads the same outputs, and every interval the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from ..core import registry
from ..core.results import Row, ShiftRow
from ..core.types import Detector, Head, Json, Loss, Output
from ..data.images import Images
from ..functional.metrics import (
    METRICS,
    auroc,
    autc,
    bootstrap,
    calibration_error,
    interval,
    measure,
    oscr,
    wilson,
)
from ..functional.uncertainty import delong
from ..models.inference import head_of, outputs
from .detectors import probes_of

MEANS = {"near": ("near",), "far": ("far",), "all": ("near", "far")}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows for a table, and `scores[detector][set]` (float64, higher = OOD) with the ID test set called "id"."""

    rows: list[Row]
    scores: dict[str, dict[str, Tensor]]


Detectors = Sequence[str] | Mapping[str, Detector]


def evaluate(
    model: nn.Module,
    detectors: Detectors,
    *,
    fit: Images,
    test: Images,
    ood: Mapping[str, tuple[str, Images]],
    classifier: str = "classifier",
    seed: int = 0,
    resamples: int = 500,
    nearest: bool = False,
    loss: Loss | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """`evaluate_outputs` of a network (uint8 images to `Output`) that is run once over each set.

    `fit` are ID training images and `test` ID test images, with labels; `ood` maps a set's name to its group and images.
    `detectors` are names, or detectors by the name their rows should have. `loss` is what the network was trained with, where it
    holds class weights. In the folder `cache` outputs are kept (see `passes.outputs`).
    """
    made, device = _made(detectors), torch.device(device)
    model.to(device)
    probes = probes_of(list(made.values()))
    at_fit = outputs(model, fit, device, probes=[probe for probe in probes if probe.for_fit], cache=cache)
    seen = {
        name: outputs(model, images, device, probes=probes, cache=cache) for name, (_, images) in ood.items()
    }
    return evaluate_outputs(
        (at_fit, fit.labels),
        (outputs(model, test, device, probes=probes, cache=cache), test.labels),
        {name: (group, seen[name]) for name, (group, _) in ood.items()},
        made,
        head=head_of(model, loss),
        classifier=classifier,
        seed=seed,
        resamples=resamples,
        nearest=nearest,
    )


def evaluate_outputs(
    fit: tuple[Output, Tensor],
    test: tuple[Output, Tensor],
    ood: Mapping[str, tuple[str, Output]],
    detectors: Detectors,
    *,
    head: Head | None = None,
    classifier: str = "classifier",
    seed: int = 0,
    resamples: int = 500,
    nearest: bool = False,
) -> Evaluation:
    """A row per detector and OOD set, then the unweighted means over near sets, far sets and both.

    `fit` (ID training) and `test` (ID test) are outputs with labels (N,); `ood` maps a set's name to its group, "near", "far" or
    "control", and its outputs; controls enter no mean, and a group without sets has none. Intervals are 95 %: percentile
    bootstrap over ID and OOD images jointly (a mean is taken per resample), Wilson for `accuracy` (argmax on `test`); without
    `resamples` DeLong's for the AUROC of a set, and none for the other metrics. They tell how well the images measure this one
    classifier, not how classifiers trained from other seeds would differ. `nearest` is as in `metrics.measure`.
    ValueError names a set that is empty, has another number of classes, an unknown group or a reserved name.
    """
    test_output, test_y = test
    _check(fit, test, ood)
    right_N = test_output.logits_BC.argmax(1) == test_y
    hits, n_id = int(right_N.sum()), len(test_output)
    ece = calibration_error(test_output.logits_BC, test_y)
    members = {(name, group): [name] for name, (group, _) in ood.items()}
    members |= {
        ("mean", mean): [name for name, (group, _) in ood.items() if group in parts]
        for mean, parts in MEANS.items()
    }
    rows, scores = [], {}
    for name, detector in _made(detectors).items():
        detector = detector.fit(*fit, head)
        id_N = detector.score(test_output).cpu()
        ood_scores = {key: detector.score(output).cpu() for key, (_, output) in ood.items()}
        scores[name] = {"id": id_N, **ood_scores}
        errors = auroc(id_N[right_N], id_N[~right_N]) if 0 < hits < n_id else None
        point = {
            key: {
                **measure(id_N, ood_M, fpr95_nearest=nearest),
                "autc": autc(id_N, ood_M),
                "oscr": oscr(id_N, ood_M, right_N),
            }
            for key, ood_M in ood_scores.items()
        }
        drawn = {
            key: bootstrap(id_N, ood_M, seed=seed, resamples=resamples, stream=key, fpr95_nearest=nearest)
            for key, ood_M in ood_scores.items()
            if resamples
        }
        for (dataset, group), keys in members.items():
            if not keys:
                continue
            values: Json = {
                metric: fmean(point[key][metric] for key in keys) for metric in (*METRICS, "autc", "oscr")
            }
            intervals: dict[str, tuple[float, float]] = {}
            if resamples:
                intervals = {
                    metric: interval(torch.stack([drawn[key][metric] for key in keys]).mean(0))
                    for metric in METRICS
                }
            elif len(keys) == 1:
                intervals = {"auroc": delong(id_N, ood_scores[keys[0]]).interval}
            row = Row(
                classifier=classifier,
                detector=name,
                dataset=dataset,
                group=group,
                seed=seed,
                accuracy=hits / n_id,
                calibration_error=ece,
                misclassification_auroc=errors,
                n_id=n_id,
                n_ood=sum(len(ood_scores[key]) for key in keys),
                intervals=intervals | {"accuracy": wilson(hits, n_id)},
                **values,
            )
            rows.append(row)
    return Evaluation(rows=rows, scores=scores)


def accuracy(
    output: Output, y_N: Tensor, limit: float, *, classifier: str, seed: int, dataset: str, severity: int = 0
) -> ShiftRow:
    """How often the largest logit is the label's, and the energy (higher for OOD) above `limit`; ValueError for an empty set."""
    if not len(output):
        raise ValueError(f"The set {dataset!r} is empty.")
    hits, n = int((output.logits_BC.argmax(1) == y_N).sum()), len(y_N)
    refused = int((-output.logits_BC.logsumexp(1) > limit).sum())
    return ShiftRow(
        classifier=classifier, seed=seed, dataset=dataset, severity=severity, accuracy=hits / n, refused=refused / n,
        interval=wilson(hits, n), n=n,
    )  # fmt: skip


def _made(detectors: Detectors) -> dict[str, Detector]:
    return (
        dict(detectors)
        if isinstance(detectors, Mapping)
        else {name: registry.make("detectors", name) for name in detectors}
    )


def _check(
    fit: tuple[Output, Tensor], known: tuple[Output, Tensor], ood: Mapping[str, tuple[str, Output]]
) -> None:
    classes = known[0].logits_BC.shape[1]
    for name, (output, y_N) in (("test", known), ("training", fit)):
        if not len(output):
            raise ValueError(f"The ID {name} set is empty.")
        if len(y_N) != len(output) or not 0 <= int(y_N.min()) <= int(y_N.max()) < classes:
            raise ValueError(
                f"The network has outputs for {classes} classes and {len(output)} ID {name} images, and there are {len(y_N)} "
                f"labels from {int(y_N.min())} to {int(y_N.max())}: is this the network's own list of classes?"
            )
    for name, (group, output) in ood.items():
        if name in ("id", "mean"):
            raise ValueError(f"An OOD set cannot be called {name!r}: the name is reserved.")
        if group not in ("near", "far", "control"):
            raise ValueError(f"OOD set {name!r} has group {group!r}; it must be near, far or control.")
        if not len(output):
            raise ValueError(f"OOD set {name!r} is empty.")
        if (given := output.logits_BC.shape[1]) != classes:
            raise ValueError(
                f"OOD set {name!r} has outputs for {given} classes, the ID test set for {classes}."
            )
