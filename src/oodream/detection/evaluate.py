"""The verb that measures: one classifier, ID and OOD images in, rows of numbers with intervals out.

The network runs once over each image set; every detector reads the same outputs, and every interval the same
resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..core import registry
from ..core.results import Row, ShiftRow
from ..core.types import Detector, Head, Output
from ..data.images import Images, ImageSet
from ..functional.metrics import (
    METRICS,
    augrc,
    aurc,
    auroc,
    autc,
    bootstrap,
    calibration_error,
    interval,
    measure,
    oscr,
)
from ..functional.uncertainty import delong
from ..models.inference import Extractor
from ..runtime.tails import wilson
from .detectors import probes_of
from .fit import Lesson, Training, joined, training_outputs
from .sanity import warn_if_upside_down
from .usable import CANNOT_BE_USED, check_known, fitted, none_left, served

__all__ = ["Detectors", "Evaluation", "evaluate", "evaluate_outputs", "shift_row"]

MEANS = {"near": ("near",), "far": ("far",), "all": ("near", "far")}
POINT_METRICS = (*METRICS, "autc", "oscr")

Detectors = Sequence[str] | Mapping[str, Detector]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows for a table, and `scores[detector][set]` (float64, higher = OOD) with the ID test set called "id".

    `skipped` holds the detectors that cannot be used with this network and these images, and why.
    `full_spectrum` are the same rows where known images that look otherwise count as known, too.
    """

    rows: list[Row]
    scores: dict[str, dict[str, Tensor]]
    skipped: dict[str, str] = field(default_factory=dict)
    full_spectrum: list[Row] = field(default_factory=list)


def evaluate(
    extractor: Extractor,
    detectors: Detectors,
    *,
    fit: Images,
    test: Images,
    ood: Sequence[ImageSet],
    outliers: Images | Lesson | None = None,
    shifted: Sequence[ImageSet] = (),
    classifier: str = "classifier",
    seed: int = 0,
    resamples: int = 500,
    fpr95_nearest: bool = False,
) -> Evaluation:
    """`evaluate_outputs` of a network that is run once over each set.

    `fit` are ID training images and `test` ID test images, with labels. `outliers`, of no test set, are what
    detectors learn from that use outliers. `detectors` are names, or detectors by the name that their rows
    should have. A detector that the network cannot serve, or that cannot be fitted, is skipped. Warns of a
    detector that ranks upside down (see `sanity`). With `shifted` sets, known images that look otherwise, all
    is measured a second time, for `full_spectrum`: their images join the ID test images (Yang et al. 2023,
    "Full-spectrum OOD detection").

    Raises ValueError for two sets of one name, when no detector is left, and as `evaluate_outputs`.
    """
    names = [one.name for one in ood]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two OOD sets are called {twice[0]!r}. Rename one.")
    usable, skipped = served(extractor, _by_name(detectors), test, {})
    training = training_outputs(extractor, list(usable.values()), fit, outliers)
    usable, skipped = fitted(training, usable, skipped)
    usable, skipped = served(extractor, usable, test, skipped)  # what some want of an image is learned
    probes = probes_of(list(usable.values()))
    known, y_N = extractor(test, probes), test.labels
    measured = partial(
        _measured,
        ood={one.name: (one.group, extractor(one.images, probes)) for one in ood},
        fitted_detectors=usable,
        skipped=skipped,
        classifier=classifier,
        seed=seed,
        resamples=resamples,
        fpr95_nearest=fpr95_nearest,
    )
    result = measured((known, y_N))
    if shifted:
        known = reduce(joined, (extractor(one.images, probes) for one in shifted), known)
        whole = measured((known, torch.cat([y_N, *(one.images.labels for one in shifted)])))
        result = replace(result, full_spectrum=whole.rows)
    used = {name: usable[name] for name in result.scores}
    warn_if_upside_down(extractor, used, test, {name: sets["id"] for name, sets in result.scores.items()})
    return result


def evaluate_outputs(
    fit: tuple[Output, Tensor],
    test: tuple[Output, Tensor],
    ood: Mapping[str, tuple[str, Output]],
    detectors: Detectors,
    *,
    head: Head | None = None,
    outliers: Output | None = None,
    shown: tuple[Output, Tensor] | None = None,
    classifier: str = "classifier",
    seed: int = 0,
    resamples: int = 500,
    fpr95_nearest: bool = False,
) -> Evaluation:
    """A row per detector and OOD set, then the unweighted means over near sets, far sets and both.

    `fit` (ID training) and `test` (ID test) are outputs with labels (N,). `ood` maps a set's name to its
    group, "near", "far" or "control", and its outputs; controls enter no mean, and a group without sets has
    none. `outliers` are outputs for detectors that learn from outliers, and `shown`, with labels, takes the
    place of `fit` for these.

    Intervals are 95 %: percentile bootstrap over ID and OOD images jointly (a mean is taken per resample),
    Wilson for `accuracy` (argmax on `test`); without `resamples` DeLong's for the AUROC of a set, and none
    for the other metrics. They tell how well the images measure this one classifier, not how classifiers
    trained from other seeds would differ. `fpr95_nearest` takes FPR95 where 95 % is nearest, as that of
    `metrics.measure` does.

    A detector that cannot be fitted or cannot score is skipped. Raises ValueError when none is left, and for
    a set that is empty, has another number of classes, an unknown group or a reserved name.
    """
    _check_sets(test, ood)
    usable, skipped = fitted(Training(*fit, head, outliers, shown), _by_name(detectors), {})
    return _measured(
        test,
        ood,
        usable,
        skipped,
        classifier=classifier,
        seed=seed,
        resamples=resamples,
        fpr95_nearest=fpr95_nearest,
    )


def _measured(
    test: tuple[Output, Tensor],
    ood: Mapping[str, tuple[str, Output]],
    fitted_detectors: Mapping[str, Detector],
    skipped: Mapping[str, str],
    *,
    classifier: str,
    seed: int,
    resamples: int,
    fpr95_nearest: bool,
) -> Evaluation:
    """`evaluate_outputs` of fitted detectors; `skipped` are those that could not be, and why."""
    _check_sets(test, ood)
    output, y_N = test
    right_N = output.logits_BC.argmax(1) == y_N
    hits, n = int(right_N.sum()), len(output)
    accuracy = {
        "accuracy": hits / n,
        "calibration_error": calibration_error(output.logits_BC, y_N),
        "n_id": n,
    }
    groups = {name: group for name, (group, _) in ood.items()}
    rows: list[Row] = []
    scores: dict[str, dict[str, Tensor]] = {}
    skipped = dict(skipped)
    for name, detector in fitted_detectors.items():
        try:
            known_N = detector.score(output).cpu()
            unknown = {key: detector.score(outputs_).cpu() for key, (_, outputs_) in ood.items()}
            numbers = _Numbers(known_N, unknown, right_N, seed, resamples, fpr95_nearest)
        except CANNOT_BE_USED as error:
            skipped[name] = str(error)
            continue
        scores[name] = {"id": known_N, **unknown}
        facts = {"classifier": classifier, "detector": name, "seed": seed, **accuracy}
        rows += numbers.rows(groups, facts, wilson(hits, n))
    if not scores:
        raise ValueError(none_left(skipped))
    return Evaluation(rows=rows, scores=scores, skipped=skipped)


def shift_row(
    output: Output,
    y_N: Tensor,
    threshold: float,
    *,
    classifier: str,
    seed: int,
    dataset: str,
    severity: int = 0,
) -> ShiftRow:
    """How often the largest logit is the label's, and the energy (higher for OOD) above the threshold.

    Raises ValueError for an empty set.
    """
    if not len(output):
        raise ValueError(f"The set {dataset!r} is empty.")
    hits, n = int((output.logits_BC.argmax(1) == y_N).sum()), len(y_N)
    flagged = int((-output.logits_BC.logsumexp(1) > threshold).sum())
    return ShiftRow(
        classifier=classifier,
        seed=seed,
        dataset=dataset,
        severity=severity,
        accuracy=hits / n,
        flagged=flagged / n,
        interval=wilson(hits, n),
        n=n,
    )


class _Numbers:
    """What one detector's scores say: of each OOD set the metrics, and their values on each resample."""

    def __init__(
        self,
        known_N: Tensor,
        unknown: Mapping[str, Tensor],
        right_N: Tensor,
        seed: int,
        resamples: int,
        nearest: bool,
    ) -> None:
        self.known_N, self.unknown, self.resamples = known_N, unknown, resamples
        both_kinds = 0 < int(right_N.sum()) < len(right_N)
        self.of_wrong_answers: dict[str, Any] = {
            "misclassification_auroc": auroc(known_N[right_N], known_N[~right_N]) if both_kinds else None,
            "aurc": aurc(known_N, right_N),
            "augrc": augrc(known_N, right_N),
        }
        self.point = {
            key: {
                **measure(known_N, scores_M, fpr95_nearest=nearest),
                "autc": autc(known_N, scores_M),
                "oscr": oscr(known_N, scores_M, right_N),
            }
            for key, scores_M in unknown.items()
        }
        self.resampled = {
            key: bootstrap(
                known_N, scores_M, seed=seed, resamples=resamples, stream=key, fpr95_nearest=nearest
            )
            for key, scores_M in unknown.items()
            if resamples
        }

    def rows(
        self, groups: Mapping[str, str], facts: dict[str, Any], accuracy_interval: tuple[float, float]
    ) -> Iterator[Row]:
        """A row per set, then one per mean that has members."""
        members = {(name, group): [name] for name, group in groups.items()}
        for mean, parts in MEANS.items():
            members["mean", mean] = [name for name, group in groups.items() if group in parts]
        for (dataset, group), keys in members.items():
            if not keys:
                continue
            values: dict[str, Any] = {m: fmean(self.point[key][m] for key in keys) for m in POINT_METRICS}
            yield Row(
                dataset=dataset,
                group=group,
                n_ood=sum(len(self.unknown[key]) for key in keys),
                intervals=self._intervals(keys) | {"accuracy": accuracy_interval},
                **self.of_wrong_answers,
                **values,
                **facts,
            )

    def _intervals(self, keys: Sequence[str]) -> dict[str, tuple[float, float]]:
        if self.resamples:
            of_mean = {m: torch.stack([self.resampled[key][m] for key in keys]).mean(0) for m in METRICS}
            return {metric: interval(values) for metric, values in of_mean.items()}
        if len(keys) == 1:
            return {"auroc": delong(self.known_N, self.unknown[keys[0]]).interval}
        return {}


def _by_name(detectors: Detectors) -> dict[str, Detector]:
    if isinstance(detectors, Mapping):
        return dict(detectors)
    return {name: registry.make("detectors", name) for name in detectors}


def _check_sets(test: tuple[Output, Tensor], ood: Mapping[str, tuple[str, Output]]) -> None:
    check_known("test", *test)
    classes = test[0].logits_BC.shape[1]
    for name, (group, output) in ood.items():
        if name in ("id", "mean"):
            raise ValueError(f"An OOD set cannot be called {name!r}: the name is reserved.")
        if group not in ("near", "far", "control"):
            raise ValueError(f"OOD set {name!r} has group {group!r}; it must be near, far or control.")
        if not len(output):
            raise ValueError(f"OOD set {name!r} is empty.")
        if (width := output.logits_BC.shape[1]) != classes:
            raise ValueError(
                f"OOD set {name!r} has outputs for {width} classes, the ID test set for {classes}."
            )
