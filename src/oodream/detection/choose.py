"""The choice of one detector of several, with its options, on images that are no test set's.

Each detector's options are tuned first (`tune`), then detectors are compared by how well they tell known from
unknown images. Where there are no unknown images, classes of the network's own stand for some: its outputs
are cut to the other classes, detectors learn from these alone, and images of the classes left out are
unknown. The network has learned from all classes, so these numbers flatter; it is the order of the detectors
that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..core import registry
from ..core.options import Option
from ..core.seeding import generator
from ..core.types import Detector, Head, Output
from ..data.images import Images, ImageSet
from ..functional.metrics import auroc
from ..models.inference import Extractor
from .detectors import probes_of, scores_of
from .fit import Lesson, Training, none_usable, training_outputs
from .sanity import own_scores_of
from .tune import kind_of, tune

__all__ = [
    "LEFT_OUT",
    "Candidate",
    "Choice",
    "choose_detector",
    "folds_of",
    "left_out_auroc",
    "without_labels",
]

LEFT_OUT = "classes left out"
FOLDS, SHARE = 3, 0.2  # how often classes are left out, and how many of them


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A fitted detector with the options that suit it best, and its AUROC by kind of unknown images, which
    are of the `groups` near or far.
    """

    name: str
    detector: Detector
    options: Mapping[str, Option]
    aurocs: Mapping[str, float]
    groups: Mapping[str, str]

    @property
    def mean(self) -> float:
        """Over near and far alike, however many kinds there are of each."""
        groups = {*self.groups.values()}
        return fmean(
            fmean(self.aurocs[kind] for kind, own in self.groups.items() if own == group) for group in groups
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidates, best first, and why other detectors cannot be used."""

    candidates: Sequence[Candidate]
    skipped: Mapping[str, str]

    @property
    def best(self) -> Candidate:
        return self.candidates[0]


def choose_detector(
    extractor: Extractor,
    detectors: Mapping[str, Mapping[str, Option]],
    *,
    fit: Images,
    known: Images,
    unknown: Sequence[ImageSet],
    outliers: Images | Lesson | None = None,
    leave_out: bool = False,
) -> Choice:
    """The detectors (by name, with the options that stay as they are) by their mean AUROC.

    They learn from the ID images `fit`, and those that use outliers also from `outliers`. They are compared
    on `known` images that are none of these, and on the `unknown` sets; with `leave_out`, where there are
    three classes at least, also on classes left out, as near ones. Of equally good detectors the first wins.

    Raises ValueError, with the reasons, where none can be used.
    """
    groups = {one.name: one.group for one in unknown}
    folds = folds_of(len(fit.classes) or int(fit.labels.max()) + 1) if leave_out else []
    candidates, skipped = [], {}
    for name, fixed in detectors.items():
        try:
            detector, tried = tune(
                extractor, name, fixed, fit=fit, known=known, unknown=[one.images for one in unknown],
                outliers=outliers,
            )  # fmt: skip
            probes = probes_of([detector])
            known_N = own_scores_of(detector, extractor(known, probes))
            aurocs = {
                one.name: auroc(known_N, scores_of(detector, extractor(one.images, probes)))
                for one in unknown
            }
            if folds:
                aurocs[LEFT_OUT] = fmean(
                    left_out_auroc(classes, name, tried.options, extractor, fit, known, outliers)
                    for classes in folds
                )
        except ValueError as error:
            skipped[name] = str(error)
            continue
        kinds = {kind: groups.get(kind, "near") for kind in aurocs}
        candidates.append(
            Candidate(name=name, detector=detector, options=tried.options, aurocs=aurocs, groups=kinds)
        )
    if not candidates:
        raise none_usable(skipped)
    return Choice(candidates=sorted(candidates, key=lambda one: -one.mean), skipped=skipped)


def without_labels(names: Sequence[str]) -> list[str]:
    """Those of the detectors that look at no labels of training images."""
    return [
        name
        for name in names
        if "labels" not in getattr(registry.get("detectors", kind_of(name)), "reads", ())
    ]


def folds_of(classes: int) -> list[Tensor]:
    """Classes to leave out: a few times some of them, drawn at random; never where fewer than two would be
    left.
    """
    count = max(1, round(SHARE * classes))
    if classes - count < 2:
        return []
    orders = [torch.randperm(classes, generator=generator(0, "left out", fold)) for fold in range(FOLDS)]
    return [order[:count] for order in orders]


def left_out_auroc(
    classes: Tensor,
    name: str,
    options: Mapping[str, Option],
    extractor: Extractor,
    fit: Images,
    known: Images,
    outliers: Images | Lesson | None,
) -> float:
    """The AUROC of a detector that has not learned of these classes, on images of the others and of these."""
    detector: Detector = registry.make("detectors", kind_of(name), **options)
    training = training_outputs(extractor, [detector], fit, outliers)
    kept_C = torch.ones(training.known.logits_BC.shape[1], dtype=torch.bool)
    kept_C[classes] = False
    detector = _cut(training, kept_C).fit(detector)
    output = extractor(known, probes_of([detector]))
    rows_M = kept_C[known.labels]
    scores = (scores_of(detector, _part(output, rows, kept_C)) for rows in (rows_M, ~rows_M))
    return auroc(*scores)


def _cut(training: Training, kept_C: Tensor) -> Training:
    """The same without the images of some classes, and without their logits."""
    head, place_C = training.head, kept_C.cumsum(0) - 1

    def known(output: Output, y_N: Tensor) -> tuple[Output, Tensor]:
        rows_N = kept_C[y_N]
        return _part(output, rows_N, kept_C), place_C[y_N[rows_N]]

    cut = head and Head(
        weight_CF=head.weight_CF[kept_C],
        bias_C=head.bias_C[kept_C],
        energy_C=None if head.energy_C is None else head.energy_C[kept_C],
    )
    outliers, shown = training.outliers, training.shown
    return Training(
        *known(training.known, training.y_N),
        cut,
        outliers and _part(outliers, torch.ones(len(outliers), dtype=torch.bool), kept_C),
        shown and known(*shown),
    )


def _part(output: Output, rows_N: Tensor, kept_C: Tensor) -> Output:
    """Some of the outputs, and of their logits some."""
    return Output(
        logits_BC=output.logits_BC[rows_N][:, kept_C],
        z_BF=output.z_BF[rows_N],
        probes={key: probe[rows_N] for key, probe in output.probes.items()},
    )
