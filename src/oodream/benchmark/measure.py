"""The steps of a measurement on a protocol: which detectors a network can serve, their options, its outputs,
their rows.

Each step leaves out the detectors that cannot be used with the network and puts the reason into `skipped`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

import torch

from ..config import MeasureConfig
from ..core.options import Option
from ..core.results import Row
from ..core.types import Detector, Output
from ..data.images import Images, ImageSet
from ..detection.detectors import probes_of
from ..detection.evaluate import evaluate_outputs
from ..detection.tune import Tried, tune
from ..models.inference import Extractor
from .protocol import KNOWN, UNKNOWN

__all__ = ["Say", "forward", "measure_rows", "of_group", "tune_detectors", "usable"]

Say = Callable[[str], None]


def of_group(sets: Sequence[ImageSet], group: str) -> Images:
    """The images of the only set of a group."""
    return next(s.images for s in sets if s.group == group)


def usable(
    detectors: Mapping[str, Detector], extractor: Extractor, images: Images, skipped: dict[str, str]
) -> dict[str, Detector]:
    """The detectors whose probes the network can give, tried on two images."""
    few, result = images.subset(torch.arange(min(2, len(images)))), {}
    for name, detector in detectors.items():
        try:
            extractor(few, probes_of([detector]))
        except ValueError as error:
            skipped[name] = str(error)
        else:
            result[name] = detector
    return result


def tune_detectors(
    extractor: Extractor,
    detectors: Mapping[str, Detector],
    options: Mapping[str, Mapping[str, Option]],
    sets: Sequence[ImageSet],
    folder: Images | None,
    say: Say,
    skipped: dict[str, str],
) -> tuple[dict[str, Detector], list[str]]:
    """The detectors with the options that separate validation images best, and notes on what was chosen.

    The known images are those of the group "val", the unknown ones those of `folder`, or of the group
    "val-ood" where there is no folder. The `options` of each detector stay as they are.
    """
    known, fit = of_group(sets, "val"), of_group(sets, "train")
    unknown = [folder] if folder is not None else [s.images for s in sets if s.group == "val-ood"]
    notes = [
        f"Options were chosen on {len(known)} known and {sum(map(len, unknown))} unknown images "
        "of no test set."
    ]
    best: dict[str, Detector] = {}
    for name in detectors:
        try:
            tuned, tried = tune(extractor, [name], options[name], fit=fit, known=known, unknown=unknown)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        best |= tuned
        line = _in_words(tried[name])
        say(f"  {name:20} {line}, the best of {tried[name].candidates} candidates")
        if tried[name].auroc > tried[name].default:
            notes.append(f"{name}: {line}, on validation images.")
    return best, notes


def _in_words(tried: Tried) -> str:
    """The options that were chosen and what they gain."""
    options = ", ".join(f"{key} {value}" for key, value in tried.options.items()) or "default options"
    return f"{options} (AUROC {100 * tried.auroc:.1f} %, by default {100 * tried.default:.1f} %)"


def forward(
    extractor: Extractor, sets: Sequence[ImageSet], detectors: Mapping[str, Detector], say: Say
) -> dict[str, Output]:
    """The network's outputs by set, with the probes that the detectors need."""
    probes, outputs = probes_of(list(detectors.values())), {}
    for item in sets:
        start = monotonic()
        needed = [probe for probe in probes if probe.for_fit] if item.group == "train" else probes
        outputs[item.name] = extractor(item.images, needed)
        say(f"  {item.name:20} {len(item.images):9,} images {monotonic() - start:8.1f} s")
    return outputs


def measure_rows(
    extractor: Extractor,
    detectors: Mapping[str, Detector],
    sets: Sequence[ImageSet],
    outputs: Mapping[str, Output],
    say: Say,
    skipped: dict[str, str],
    *,
    config: MeasureConfig,
    classifier: str,
    fpr95_nearest: bool,
) -> Iterator[list[Row]]:
    """The rows of each detector, one detector at a time, as `detection.evaluate.evaluate_outputs` measures
    them.

    `config` has the seed and the number of resamples.
    """
    known = {s.group: (outputs[s.name], s.images.labels) for s in sets if s.group in KNOWN}
    ood = {s.name: (s.group, outputs[s.name]) for s in sets if s.group in UNKNOWN}
    for name, detector in detectors.items():
        start = monotonic()
        try:
            evaluation = evaluate_outputs(
                known.get("train", known["test"]),  # without training images no detector learns
                known["test"],
                ood,
                {name: detector},
                head=extractor.head,
                classifier=classifier,
                seed=config.seed,
                resamples=config.resamples,
                fpr95_nearest=fpr95_nearest,
            )
        except ValueError as error:
            skipped[name] = str(error)
            continue
        say(f"  {name:20} {monotonic() - start:25.1f} s")
        yield evaluation.rows
