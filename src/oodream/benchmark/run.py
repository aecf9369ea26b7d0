"""`oodream evaluate`: one network on one protocol, measured by any number of detectors; rows, tables and what
they stand on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from torch import Tensor, nn

from ..config import MeasureConfig
from ..core import registry
from ..core.device import device_of
from ..core.errors import DataError
from ..core.files import write_bytes, write_json
from ..core.options import ConfigError
from ..core.results import write_rows
from ..core.types import Detector, Json, Output
from ..data.folders import load_ood
from ..data.images import Images, ImageSet
from ..detection.apart import shared_pictures
from ..detection.detectors import learned_fields
from ..detection.evaluate import Evaluation, evaluate
from ..detection.fit import Lesson, uses_outliers
from ..detection.sanity import warn_of_upside_down
from ..models.inference import Compute, Extractor
from ..models.opened import Said, normalises, tried_out
from .explain import explain
from .locate import Located, Rooted
from .model import Model, class_order, open_model
from .own import OwnImages
from .protocol import KNOWN, MEASURED, SHIFTED, UNKNOWN, Protocol, least_accuracy
from .read import read_sets
from .tables import tables
from .tune import Say, of_group, tune_detectors

__all__ = ["ALL", "FACTS", "Job", "run_benchmark"]

ALL = "all"  # in place of detectors' names: every one that the network can serve
FACTS = "evaluation.json"  # what the numbers stand on; written last
VALIDATION = "val"  # in place of a folder of unknown images: the protocol's own validation sets


@dataclass(frozen=True, kw_only=True)
class Job(MeasureConfig):
    """How a network is measured, and the folder to write."""

    out: Path
    plugins: bool = False


class _SpeakingExtractor(Extractor):
    """An extractor that says of every image set how long it took."""

    def __init__(self, say: Say, network: nn.Module, **options: Any) -> None:
        super().__init__(network, **options)
        self.say = say

    def __call__(self, images: Images, *args: Any, **options: Any) -> Output:
        start = monotonic()
        output = super().__call__(images, *args, **options)
        self.say(f"  {images.name:20} {len(images):9,} images {monotonic() - start:8.1f} s")
        return output


def run_benchmark(
    origin: Rooted | OwnImages,
    source: str,
    weights: Path | None,
    job: Job,
    say: Say = print,
    teach: Callable[[Images], Lesson] | None = None,
    compute: Compute | None = None,
) -> str:
    """Measures a network on a protocol's images, or a user's, and returns the tables as Markdown.

    Writes results.jsonl, results.md, evaluation.json and the folder cache into `job.out`, and with
    `job.full_spectrum` full_spectrum.jsonl, the rows with shifted images among the known ones. `source` and
    `weights` name the network, as `open_model` takes them. With `job.tune` the detectors' options are chosen
    first: on the protocol's validation sets ("val"), or on its known ones and the images of a folder. A
    detector that cannot be used with this network is left out, and the notes say why. Training images are
    read only where a detector learns from them or options are chosen; the images of the folder `job.outliers`
    only where a detector learns from outliers. `teach` makes of the ID training images what these learn from
    in place of that folder's images. `compute` is as in `Extractor`.

    Raises, before any image is read: ConfigError for detectors and options that cannot be, DataError for all
    images that are missing, ValueError for a network that does not fit. Raises ValueError when no detector
    can be used.
    """
    detectors, skipped = _detectors(job)
    options = registry.options_by_name("detectors", list(detectors), job.detector_options)
    located = _located(origin, job, detectors)
    protocol = located.protocol
    said = Said(size=job.size or protocol.size, mean=job.mean, std=job.std)
    model = open_model(source, weights, protocol, said, job.plugins)
    job = _with_size(job, model, protocol)
    order, notes = class_order(model, protocol), _notes(located, model, job)
    sets = _read(located, model, order, job)
    # The cache knows a file by its path, length and time, and not what is cut away of its image.
    cache, device = job.out / "cache" / f"crop-{job.crop:g}", device_of(job.device)
    passing: dict[str, Any] = {"loss": model.loss, "device": device, "cache": cache, "compute": compute}
    extractor = Extractor(model.network, **passing)
    outliers: Images | Lesson | None = None
    if learning := [name for name, detector in detectors.items() if uses_outliers(detector)]:
        outliers, what = _outliers(sets, job, teach)
        notes.append(f"{', '.join(learning)} learned from {what}.")
    if job.tune:
        folder = None if job.tune == VALIDATION else load_ood(Path(job.tune), job.size)
        detectors, useless, tuned = tune_detectors(extractor, options, sets, folder, say, outliers)
        skipped |= useless
        notes += tuned
    speaking = _SpeakingExtractor(say, model.network, **passing)
    evaluation = _evaluate(speaking, detectors, sets, outliers, model.name, protocol, job)
    notes += shared_pictures([s.images for s in sets])
    notes += _accuracy_notes(protocol, evaluation.rows[0].accuracy, model.network, job)
    notes += _upside_down_notes(model.name, evaluation)
    notes += [f"{name} is left out: {reason}" for name, reason in (skipped | evaluation.skipped).items()]
    text = tables(protocol, evaluation.rows, notes, evaluation.full_spectrum)
    for name, rows in (("results", evaluation.rows), ("full_spectrum", evaluation.full_spectrum)):
        if rows:
            write_rows(job.out / f"{name}.jsonl", rows)
    write_bytes(job.out / "results.md", text.encode())
    write_json(job.out / FACTS, _facts(located, model, extractor.weights_hash, sets, notes, job))
    return text


def _outliers(
    sets: Sequence[ImageSet], job: Job, teach: Callable[[Images], Lesson] | None
) -> tuple[Images | Lesson, str]:
    """What detectors learn from that learn from outliers, and what it is in words."""
    if teach:
        lesson = teach(_fit(sets))
        return lesson, lesson.remark
    images = load_ood(Path(job.outliers), job.size)
    return images, f"{len(images)} outliers, the images of {job.outliers}"


def _detectors(job: Job) -> tuple[dict[str, Detector], dict[str, str]]:
    """The job's detectors by name; and of "all" those that learn from outliers where there are none, and why
    they are left out.

    Raises ConfigError for "all" beside a name, for a named detector that lacks outliers, and for outliers
    that options are chosen on, too.
    """
    if ALL in job.detectors and len(job.detectors) > 1:
        raise ConfigError(f"{ALL!r} stands for every detector. Name no other beside it.")
    names = registry.names("detectors") if job.detectors == (ALL,) else job.detectors
    detectors = registry.make_all("detectors", names, job.detector_options)
    learning = [name for name, detector in detectors.items() if uses_outliers(detector)]
    if job.outliers:
        _check_outliers(job)
        return detectors, {}
    give = "it learns from outliers. Give a run that has some, or a folder of them, with --outliers"
    if learning and ALL not in job.detectors:
        raise ConfigError(f"The detector {learning[0]!r} has nothing to learn from: {give}.")
    return {name: detectors[name] for name in names if name not in learning}, dict.fromkeys(learning, give)


def _check_outliers(job: Job) -> None:
    """DataError for outliers that are no folder, ConfigError where options are chosen on the same images."""
    if not Path(job.outliers).is_dir():
        raise DataError(f"{job.outliers} is not a folder. --outliers takes a folder of unknown images.")
    tune, outliers = Path(job.tune).resolve(), Path(job.outliers).resolve()
    if job.tune not in ("", VALIDATION) and outliers in (tune, *tune.parents):
        raise ConfigError(
            "--tune and --outliers are the same images: options would be chosen on the images that the "
            f"detectors learn from. Give other images, or --tune {VALIDATION}."
        )


def _located(origin: Rooted | OwnImages, job: Job, detectors: Mapping[str, Detector]) -> Located:
    """The sets that the job needs; DataError for all that is missing."""
    protocol = origin.protocol
    learns = any(learned_fields(detector) for detector in detectors.values())
    groups = [group for group in MEASURED if group != "train" or learns or job.tune]
    if job.full_spectrum:
        if not any(item.group == SHIFTED for item in protocol.sets):
            raise DataError(f"{protocol.name} has no set of the group {SHIFTED}: it has no full spectrum.")
        groups.append(SHIFTED)
    if job.tune:
        tuned = ["val", "val-ood"] if job.tune == VALIDATION else ["val"]
        if lacking := [group for group in tuned if group not in {s.group for s in protocol.sets}]:
            raise DataError(
                f"{protocol.name} has no set of the group {' and '.join(lacking)} to choose options on."
            )
        if job.tune != VALIDATION and not Path(job.tune).is_dir():
            raise DataError(
                f"{job.tune} is not a folder. --tune takes {VALIDATION!r}, or a folder of unknown images."
            )
        groups += tuned
    located = origin.locate(groups)
    if located.missing:
        raise DataError(explain(located))
    return located


def _with_size(job: Job, model: Model, protocol: Protocol) -> Job:
    """The job with the size and crop of the network's images; ConfigError where the size is not known,
    ValueError where the network cannot be run on images of it.
    """
    size = job.size or model.size or protocol.size or model.made_for
    if not size:
        raise ConfigError(f"{model.name} does not say how large its images are. Give --size, as --size 224.")
    tried_out(model.name, model.network, size)
    return replace(job, size=size, crop=job.crop or (1.0 if model.size else protocol.crop))


def _read(located: Located, model: Model, order: Tensor | None, job: Job) -> list[ImageSet]:
    """The image sets, with the network's labels and class names where they are in another order than the
    protocol's.
    """
    limits = dict.fromkeys(KNOWN + UNKNOWN, job.max_images)
    limits["train"] = min((n for n in (job.fit, job.max_images) if n), default=0)
    sets = read_sets(located, job.size, crop=job.crop, max_images=limits, seed=job.seed)
    if order is None:
        return sets
    return [
        replace(s, images=replace(s.images, labels=order[s.images.labels], classes=model.names))
        if s.group in KNOWN
        else s
        for s in sets
    ]


def _notes(located: Located, model: Model, job: Job) -> list[str]:
    """What makes these numbers others than the protocol's."""
    notes = [f"{remark}." for found in located.found for remark in found.remarks]
    if model.made_for not in (0, job.size):
        notes.append(
            f"{model.name} was made for images {model.made_for} pixels wide and gets images {job.size} "
            f"pixels wide. Give --size {model.made_for} to measure it as it was trained."
        )
        warnings.warn(notes[-1], stacklevel=3)
    if job.mean:
        notes.append(f"Pixels in [0, 1] less {_numbers(job.mean)} over {_numbers(job.std)}, as was said.")
    if job.max_images:
        notes.append(
            f"Of every set at most {job.max_images} images were used: these are not the protocol's numbers."
        )
    if job.fit:
        notes.append(f"The detectors were fitted to at most {job.fit} training images.")
    return notes


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _evaluate(
    extractor: Extractor,
    detectors: Mapping[str, Detector],
    sets: Sequence[ImageSet],
    outliers: Images | Lesson | None,
    classifier: str,
    protocol: Protocol,
    job: Job,
) -> Evaluation:
    """The rows and scores of all detectors on the sets that are measured."""
    return evaluate(
        extractor,
        detectors,
        fit=_fit(sets),
        test=of_group(sets, "test"),
        ood=[s for s in sets if s.group in MEASURED and s.group in UNKNOWN],
        outliers=outliers,
        shifted=[s for s in sets if s.group == SHIFTED],
        classifier=classifier,
        seed=job.seed,
        resamples=job.resamples,
        fpr95_nearest=protocol.nearest,
        warn=False,
    )


def _fit(sets: Sequence[ImageSet]) -> Images:
    """The training images; if no detector learns, any will do."""
    return next((s.images for s in sets if s.group == "train"), of_group(sets, "test"))


def _upside_down_notes(model: str, evaluation: Evaluation) -> list[str]:
    """The detectors that rank test images below pseudo-OOD ones, a warning of which is also given at once."""
    warn_of_upside_down({model: evaluation.upside_down})
    return [
        f"{name} ranks upside down: test images made unrecognizable look better known to it than the test "
        f"images (AUROC {auroc:.1%}). Its numbers mean nothing here."
        for name, auroc in evaluation.upside_down.items()
    ]


def _accuracy_notes(protocol: Protocol, accuracy: float, network: Any, job: Job) -> list[str]:
    """A warning, also given at once, when the network cannot be the one that was trained, or gets other
    images.
    """
    if accuracy >= (least := least_accuracy(protocol)):
        return []
    note = (
        f"The accuracy is {100 * accuracy:.1f} %. Below {100 * least:.0f} % something is wrong: the network "
        "gets other images than in training (size, crop, normalization, order of the classes), or is not "
        "trained. The other numbers then mean nothing."
    )
    if normalises(network) and not job.mean:
        mean, std = (_numbers(values.flatten().tolist()) for values in (network.mean, network.std))
        note += (
            f" It got pixels in [0, 1] less {mean} over {std}, for neither --mean nor --std was given: was "
            "it trained so?"
        )
    warnings.warn(note, stacklevel=3)
    return [note]


def _facts(
    located: Located, model: Model, weights: str, sets: Sequence[ImageSet], notes: Sequence[str], job: Job
) -> Json:
    """What the numbers stand on."""
    counts = {s.name: len(s.images) for s in sets}
    return {
        "protocol": {"name": located.protocol.name, "sha256": located.protocol.digest},
        "model": {"name": model.name, "weights": weights},
        "size": job.size,
        "crop": job.crop,
        **({"mean": list(job.mean), "std": list(job.std)} if job.mean else {}),
        "fit": job.fit,
        "max_images": job.max_images,
        "seed": job.seed,
        "resamples": job.resamples,
        "notes": list(notes),
        "sets": {
            found.set.name: {
                "group": found.set.group,
                "place": found.place,
                "list_sha256": found.sha256,
                "images": counts[found.set.name],
            }
            for found in located.found
        },
    }
