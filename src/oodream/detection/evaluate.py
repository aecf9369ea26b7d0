"""The verb that measures: one classifier, ID and OOD images in, rows of numbers with intervals out.

The network runs once over each image set; every detector reads the same outputs, and every interval the same
resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ..core import registry
from ..core.faults import blamed
from ..core.results import Row, ShiftRow
from ..core.types import Detector, Head, Output
from ..data.images import Images, ImageSet
from ..functional.metrics import calibration_error
from ..models.inference import Extractor, joined, outputs
from ..runtime.tails import wilson
from .apart import check_sizes, warn_of_shared
from .detectors import learned_fields, probes_of, scores_of
from .fit import Lesson, Training, none_usable, training_outputs
from .numbers import Numbers
from .sanity import own_scores_of, upside_down, warn_of_upside_down

__all__ = ["Detectors", "Evaluation", "evaluate", "evaluate_outputs", "shift_row"]

Detectors = Sequence[str] | Mapping[str, Detector]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows for a table, and `scores[detector][set]` (float64, higher = OOD) with the ID test set called "id".

    `skipped` holds the detectors that cannot be used with this network and these images, and why.
    `full_spectrum` are the same rows where known images that look otherwise count as known, too.
    `upside_down` are detectors that rank upside down (see `sanity`), with their AUROC in [0, 1].
    """

    rows: list[Row]
    scores: dict[str, dict[str, Tensor]]
    skipped: dict[str, str] = field(default_factory=dict)
    full_spectrum: list[Row] = field(default_factory=list)
    upside_down: dict[str, float] = field(default_factory=dict)


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
    warn: bool = True,
) -> Evaluation:
    """`evaluate_outputs` of a network that is run once over each set.

    `fit` are ID training images and `test` ID test images, with labels. `outliers`, of no test set, are what
    detectors learn from that use outliers. `detectors` are names, or detectors by the name that their rows
    should have. A detector that the network cannot serve, or that cannot be fitted, is skipped. Warns of
    sets that share files, and of detectors that rank upside down (see `sanity`), unless the caller does:
    `warn` is False. With `shifted` sets, known images that look otherwise, all is measured again
    for `full_spectrum`: they join the ID test images (Yang et al. 2023, "Full-spectrum OOD detection").

    Raises ValueError for two sets of one name, for what is no ImageSet, for images of two sizes, when no
    detector is left, and as `evaluate_outputs`.
    """
    _check_resamples(resamples)
    _check_image_sets(ood, shifted)
    by_name = _by_name(detectors)
    _check_classes(extractor, {"training": fit, "test": test})
    measured_sets = [test, *(one.images for one in ood)]
    check_sizes(measured_sets)
    served, skipped = _served(extractor, by_name, test, {})
    training = training_outputs(extractor, list(served.values()), fit, outliers)
    fitted, skipped = _fitted(training, served, skipped)
    served, skipped = _served(extractor, fitted, test, skipped)  # what some want of an image is learned
    learned = [fit] if any(learned_fields(detector) for detector in served.values()) else []
    warn_of_shared([*learned, *measured_sets])
    probes = probes_of(list(served.values()))
    known, y_N = extractor(test, probes), test.labels
    measured = partial(
        _measured,
        ood={one.name: (one.group, extractor(one.images, probes)) for one in ood},
        fitted=served,
        skipped=skipped,
        classifier=classifier,
        seed=seed,
        resamples=resamples,
        fpr95_nearest=fpr95_nearest,
    )
    result = measured((known, y_N))
    if shifted:
        known = joined([known, *(extractor(one.images, probes) for one in shifted)])
        whole = measured((known, torch.cat([y_N, *(one.images.labels for one in shifted)])))
        result = replace(result, full_spectrum=whole.rows)
    found = upside_down(extractor, served, test, {n: sets["id"] for n, sets in result.scores.items()})
    if warn:
        warn_of_upside_down({f"{classifier}-s{seed}": found})
    return replace(result, upside_down=found)


def _check_classes(extractor: Extractor, sets: Mapping[str, Images]) -> None:
    """Raises ValueError, before the network runs, for labels that it is known to have no outputs for."""
    if (last := extractor.head) is not None:
        for name, images in sets.items():
            _check_labels(name, len(images), images.labels, len(last.bias_C))


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

    A detector that cannot be fitted or cannot score, whatever it raises, is skipped. Raises ValueError when
    none is left, for fewer than 0 resamples, for a detector's name in place of a list, and for a set that is
    empty, has another number of classes, an unknown group or a reserved name.
    """
    _check_resamples(resamples)
    _check_sets(test, ood)
    fitted, skipped = _fitted(Training(*fit, head, outliers, shown), _by_name(detectors), {})
    return _measured(
        test,
        ood,
        fitted,
        skipped,
        classifier=classifier,
        seed=seed,
        resamples=resamples,
        fpr95_nearest=fpr95_nearest,
    )


def _fitted(
    training: Training, detectors: Mapping[str, Detector], skipped: Mapping[str, str]
) -> tuple[dict[str, Detector], dict[str, str]]:
    """The detectors, fitted, and the reasons why those are skipped that cannot be; ValueError for labels that
    are not the network's.
    """
    _check_known("training", training.known, training.y_N)
    fitted, failed = {}, {}
    for name, detector in detectors.items():
        try:
            fitted[name] = training.fit(detector)
        except ValueError as error:
            failed[name] = str(error)
    return fitted, {**skipped, **failed}


def _measured(
    test: tuple[Output, Tensor],
    ood: Mapping[str, tuple[str, Output]],
    fitted: Mapping[str, Detector],
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
    for name, detector in fitted.items():
        try:
            known_N = own_scores_of(detector, output)
            unknown = {key: scores_of(detector, outputs_) for key, (_, outputs_) in ood.items()}
            numbers = Numbers(known_N, unknown, right_N, seed, resamples, fpr95_nearest)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        scores[name] = {"id": known_N, **unknown}
        facts = {"classifier": classifier, "detector": name, "seed": seed, **accuracy}
        rows += numbers.rows(groups, facts, wilson(hits, n))
    if not scores:
        raise none_usable(skipped)
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


def _by_name(detectors: Detectors) -> dict[str, Detector]:
    if isinstance(detectors, str):
        raise ValueError(f"Detectors are a list of names: write [{detectors!r}] in place of {detectors!r}.")
    if isinstance(detectors, Mapping):
        return dict(detectors)
    return {name: registry.make("detectors", name) for name in detectors}


def _served(
    extractor: Extractor, detectors: Mapping[str, Detector], test: Images, skipped: Mapping[str, str]
) -> tuple[dict[str, Detector], dict[str, str]]:
    """The detectors whose probes the network can give, as two images show; and why the others are skipped."""
    served: dict[str, Detector] = {}
    skipped = dict(skipped)
    two = test.subset(torch.arange(min(2, len(test))))
    for name, detector in detectors.items():
        try:
            with blamed(type(detector).__name__, detector):
                if probes := probes_of([detector]):
                    outputs(extractor.network, two, extractor.device, probes=probes)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        served[name] = detector
    if not served:
        raise none_usable(skipped)
    return served, skipped


def _check_image_sets(ood: Sequence[ImageSet], shifted: Sequence[ImageSet]) -> None:
    for argument, sets in (("ood", ood), ("shifted", shifted)):
        if isinstance(sets, (ImageSet, Images)):
            raise ValueError(f"`{argument}` is a list of ImageSet: write {argument}=[…].")
        for one in sets:
            if not isinstance(one, ImageSet):
                name = one.name if isinstance(one, Images) else "NAME"
                group = "shift" if argument == "shifted" else "near"
                raise ValueError(
                    f"`{argument}` holds {type(one).__name__} in place of an ImageSet. Say what it is called "
                    f"and of which group it is: ImageSet(name={name!r}, group={group!r}, images=…)."
                )
    for one in ood:
        _check_named(one.name, one.group)
    names = [one.name for one in ood]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Two OOD sets are called {twice[0]!r}. Rename one.")
    if unlabelled := [one.name for one in shifted if (one.images.labels < 0).any()]:
        raise ValueError(
            f"The shifted set {unlabelled[0]!r} has images without a label; it shows known classes, and has "
            "the labels of these."
        )


def _check_known(name: str, output: Output, y_N: Tensor) -> None:
    _check_labels(name, len(output), y_N, output.logits_BC.shape[1])


def _check_labels(name: str, count: int, y_N: Tensor, classes: int) -> None:
    if not count:
        raise ValueError(f"The ID {name} set is empty.")
    if len(y_N) != count or not 0 <= int(y_N.min()) <= int(y_N.max()) < classes:
        raise ValueError(
            f"The network has outputs for {classes} classes and {count} ID {name} images, and "
            f"there are {len(y_N)} labels from {int(y_N.min())} to {int(y_N.max())}: is this the "
            "network's own list of classes? Classes that it does not know are left out by "
            "load_folder(…, unknown=(NAME, …))."
        )


def _check_sets(test: tuple[Output, Tensor], ood: Mapping[str, tuple[str, Output]]) -> None:
    _check_known("test", *test)
    classes = test[0].logits_BC.shape[1]
    for name, (group, output) in ood.items():
        _check_named(name, group)
        if not len(output):
            raise ValueError(f"OOD set {name!r} is empty.")
        if (width := output.logits_BC.shape[1]) != classes:
            raise ValueError(
                f"OOD set {name!r} has outputs for {width} classes, the ID test set for {classes}."
            )


def _check_named(name: str, group: str) -> None:
    if name in ("id", "mean"):
        raise ValueError(f"An OOD set cannot be called {name!r}: the name is reserved.")
    if group not in ("near", "far", "control"):
        raise ValueError(f"OOD set {name!r} has group {group!r}; it must be near, far or control.")


def _check_resamples(resamples: int) -> None:
    if resamples < 0:
        raise ValueError(f"`resamples` is {resamples}; it is 1 or more, or 0 for no bootstrap intervals.")
