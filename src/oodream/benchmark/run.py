"""`oodream evaluate`: one network on one protocol, measured by any number of detectors; rows, tables and what they were made of.

What a protocol is lives in `protocols`, how is measured in `evaluate`; here they meet a network, a folder to write and a person.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from ..config import MeasureConfig
from ..core import registry
from ..core.device import device_of
from ..core.errors import DataError, listed
from ..core.files import write_bytes, write_json
from ..core.results import Row, row_to_json
from ..core.types import Detector, Json, Loss, Output
from ..data.folders import load_ood
from ..data.images import Images
from ..detection.detectors import Fixed, probes_of
from ..detection.evaluate import evaluate_outputs
from ..detection.tune import search
from ..models.classifier import load
from ..models.factory import backbone, load_weights
from ..models.inference import hash_of, head_of, outputs
from .locate import Found, Located, explain, locate
from .protocol import KNOWN, MEASURED, UNKNOWN, Benchmark
from .read import read_all
from .tables import tables

ALL = "all"
Say = Callable[[str], None]
Sets = Mapping[str, tuple[str, Images]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network to be measured, with its image size, class names and training loss where it has its own."""

    name: str
    network: nn.Module
    size: int = 0
    names: tuple[str, ...] = ()
    loss: Loss | None = None


@dataclass(frozen=True, kw_only=True)
class Job(MeasureConfig):
    """How a network is measured, from which folders (and the hub, if asked), into which one."""

    out: Path
    roots: tuple[Path, ...] = ()
    hub: bool = False
    plugins: bool = False


def open_model(source: str, weights: Path | None, benchmark: Benchmark, plugins: bool = False) -> Model:
    """A classifier's folder, or a network by name with its published weights or those of a safetensors file.

    ValueError when it has another number of classes than the protocol, or would have random weights; plug-ins as in
    `classifier.load`.
    """
    folder, count = Path(source), len(benchmark.classes)
    if folder.is_dir():
        if weights is not None:
            raise ValueError(f"{source} has weights of its own; leave --weights out.")
        found = load(folder, plugins)
        return Model(name=source, network=found.network, size=found.size, names=found.names, loss=found.loss)
    network = backbone(source, count, pretrained=weights is None)
    if weights is not None:
        load_weights(network, weights)
    elif ":" not in source:
        raise ValueError(
            f"{source} has no published weights. Name a file with --weights FILE.safetensors, or a classifier's folder."
        )
    elif (known := _published(network).get("num_classes", count)) != count:
        raise ValueError(
            f"{source} knows {known} classes and {benchmark.name} has {count}: its last layer would be random."
        )
    return Model(name=source, network=network.eval())


def _published(network: nn.Module) -> Mapping[str, Any]:
    """What timm says a network was trained on; empty for others."""
    return getattr(getattr(network, "body", None), "pretrained_cfg", None) or {}


def overview(benchmark: Benchmark, roots: Sequence[Path], hub: bool) -> str:
    """What is there of all sets, what is missing and where to get it; no picture is opened."""
    located = locate(benchmark, roots, hub=hub)
    names = located.benchmark.classes
    lines = [
        f"{benchmark.name}: {benchmark.about}",
        f"  {benchmark.size} pixels, {len(names) or 'as yet unknown'} classes",
    ]
    for found in located.found:
        n = len(found.files) or found.set.count
        lines.append(f"  {found.set.name} ({found.set.group}{f', {n:,} images' if n else ''}): {found.place}")
        lines += [f"    {remark}" for remark in found.remarks]
    return "\n".join(
        [*lines, explain(located, roots) or "Nothing is missing.", *(f"- {note}" for note in benchmark.notes)]
    )


def measure(benchmark: Benchmark, source: str, weights: Path | None, job: Job, say: Say = print) -> str:
    """Measures a network on a protocol; writes results.jsonl, results.md and evaluation.json into `job.out`, returns the tables.

    The detectors are names, with options as NAME.option, or "all": every one that the network can serve. `fit` cuts the training
    images they are fitted to, and `most` every set, to so many images. With `search` options are chosen first, on the protocol's
    validation sets ("val"), or on its known ones and the images in a folder, of none of its sets. When no detector
    learns and none is searched for, no training images are needed.
    DataError, before any picture is read, for all that is missing; ValueError for a network that does not fit.
    """
    everything = job.detectors == (ALL,)
    chosen = registry.names("detectors") if everything else job.detectors
    made: dict[str, Detector] = registry.make_all("detectors", chosen, job.detector_options)
    learns = not all(isinstance(detector, Fixed) for detector in made.values())
    groups = [group for group in MEASURED if learns or job.search or group != "train"]
    groups += {"": [], "val": ["val", "val-ood"]}.get(job.search, ["val"])
    located = locate(benchmark, job.roots, groups, hub=job.hub)
    if located.missing:
        raise DataError(explain(located, job.roots))
    benchmark = located.benchmark
    model, device = open_model(source, weights, benchmark, job.plugins), device_of(job.device)
    job = replace(
        job,
        size=job.size or model.size or benchmark.size,
        crop=job.crop or (1.0 if model.size else benchmark.crop),
    )
    notes = _notes(located, model, job)
    sets = _read(located, model, job)
    strange = [load_ood(Path(job.search), job.size)] if job.search not in ("", "val") else []
    if job.search and (
        lacking := {"val", *([] if strange else ["val-ood"])} - {group for group, _ in sets.values()}
    ):
        raise DataError(
            f"{benchmark.name} has no set of the group {' and '.join(sorted(lacking))} to search on."
        )
    model.network.to(device)
    refused: dict[str, str] = {}
    if everything:
        made = _served(
            made,
            model.network,
            next(images for group, images in sets.values() if group == "test"),
            device,
            refused,
        )
    if job.search:
        made, told = _searched(model, sets, strange, made, job, device, say, refused if everything else None)
        notes += told
    every, sets = sets, {name: (group, images) for name, (group, images) in sets.items() if group in MEASURED}
    seen = _seen(model.network, sets, made, job, device, say)
    notes += _accuracy_note(benchmark, sets, seen)
    rows: list[Row] = []
    for found in _rows(benchmark, model, made, sets, seen, job, say, refused if everything else None):
        rows += found
        write_bytes(job.out / "results.jsonl", "".join(row_to_json(row) + "\n" for row in rows).encode())
    notes += [f"{name} is left out: {why}" for name, why in refused.items()]
    if not rows:
        raise ValueError("\n".join([f"None of the detectors can be used with {model.name}.", *notes]))
    text = tables(benchmark, rows, notes)
    write_bytes(job.out / "results.md", text.encode())
    write_json(job.out / "evaluation.json", _facts(benchmark, model, located.found, every, job, notes))
    return text


def least_accuracy(benchmark: Benchmark) -> float:
    """The accuracy below which something is wrong: the protocol's, else three times chance, but no more than half-way to 1."""
    chance = 1 / len(benchmark.classes)
    return benchmark.least_accuracy or min(3 * chance, (1 + chance) / 2)


def _notes(located: Located, model: Model, job: Job) -> list[str]:
    """What makes these numbers others than the protocol's."""
    notes = [f"{remark}." for found in located.found for remark in found.remarks]
    own = _published(model.network).get("input_size", (3, job.size, job.size))[-1]
    if own != job.size:
        notes.append(
            f"{model.name} was trained on images {own} pixels wide and sees {job.size}; --size {own} gives it its own."
        )
        warnings.warn(notes[-1], stacklevel=3)
    if job.most:
        notes.append(
            f"Of every set at most {job.most} images were used: these are not the protocol's numbers."
        )
    if job.fit:
        notes.append(f"The detectors were fitted to at most {job.fit} training images.")
    return notes


def _read(located: Located, model: Model, job: Job) -> Sets:
    """The image sets, with the network's labels and class names where it has its own."""
    labels = _labels(model, located.benchmark)
    fit = min(job.fit or job.most, job.most or job.fit)
    sets = read_all(
        located,
        job.size,
        crop=job.crop,
        most=dict.fromkeys(KNOWN + UNKNOWN, job.most) | {"train": fit},
        seed=job.seed,
    )
    if labels is None:
        return sets
    return {
        name: (
            group,
            replace(images, labels=labels[images.labels], classes=model.names) if group in KNOWN else images,
        )
        for name, (group, images) in sets.items()
    }


def _labels(model: Model, benchmark: Benchmark) -> Tensor | None:
    """The network's label of each of the protocol's classes, if they are in another order; ValueError if they are others."""
    ours, theirs = ([name.casefold() for name in names] for names in (model.names, benchmark.classes))
    unnamed = benchmark.classes == tuple(map(str, range(len(ours))))
    if not ours or ours == theirs or unnamed:
        return None
    if sorted(ours) != sorted(theirs):
        lacking = listed(name for name, key in zip(benchmark.classes, theirs, strict=True) if key not in ours)
        raise ValueError(
            f"{model.name} knows {len(ours)} classes and {benchmark.name} has {len(theirs)}"
            + (f"; it does not know {lacking}." if lacking else ": it knows more.")
        )
    return torch.tensor([ours.index(name) for name in theirs])


def _served(
    detectors: Mapping[str, Detector],
    network: nn.Module,
    test: Images,
    device: torch.device,
    refused: dict[str, str],
) -> dict[str, Detector]:
    """The detectors whose probes the network can give, as two images show; the others go to `refused`, with the reason."""
    served = {}
    for name, detector in detectors.items():
        try:
            outputs(
                network, test.subset(torch.arange(min(2, len(test)))), device, probes=probes_of([detector])
            )
        except ValueError as error:
            refused[name] = str(error)
        else:
            served[name] = detector
    return served


def _searched(
    model: Model,
    sets: Sets,
    strange: Sequence[Images],
    detectors: Mapping[str, Detector],
    job: Job,
    device: torch.device,
    say: Say,
    refused: dict[str, str] | None,
) -> tuple[dict[str, Detector], list[str]]:
    """The detectors with the options that tell validation images apart best, and a note on each that left its default."""
    known = next(images for group, images in sets.values() if group == "val")
    unknown = [images for group, images in sets.values() if group == "val-ood"] or strange
    fit = next(images for group, images in sets.values() if group == "train")
    best: dict[str, Detector] = {}
    notes = [
        f"Options were searched on {len(known)} known and {sum(map(len, unknown))} unknown images of no test set."
    ]
    for name in detectors:
        own = {
            key: value for key, value in job.detector_options.items() if key.rpartition(".")[0] in (name, "")
        }
        try:
            found, tried = search(
                model.network,
                [name],
                own,
                fit=fit,
                known=known,
                unknown=unknown,
                loss=model.loss,
                cache=_cache(job),
                device=device,
            )
        except ValueError as error:
            if refused is None:
                raise ValueError(f"{name}: {error}") from error
            refused[name] = str(error)
            continue
        best |= found
        one = tried[name]
        options = ", ".join(f"{key} {value}" for key, value in one.options.items()) or "as it is"
        gained = f"AUROC {100 * one.auroc:.1f} %, by default {100 * one.default:.1f} %"
        say(f"  {name:20} {options}, of {one.candidates} candidates ({gained})")
        if one.auroc > one.default:
            notes.append(f"{name}: {options} ({gained}, on validation images).")
    return best, notes


def _cache(job: Job) -> Path:
    """Where outputs are kept: the cache knows files by path, length and time; what is cut away of a picture it must be told."""
    return job.out / "cache" / f"crop-{job.crop:g}"


def _seen(
    network: nn.Module,
    sets: Sets,
    detectors: Mapping[str, Detector],
    job: Job,
    device: torch.device,
    say: Say,
) -> dict[str, Output]:
    """The network's outputs for every set, with the detectors' probes, kept in the folder `cache`."""
    probes, seen = probes_of(list(detectors.values())), {}
    for name, (group, images) in sets.items():
        start = monotonic()
        wanted = [probe for probe in probes if probe.for_fit] if group == "train" else probes
        seen[name] = outputs(network, images, device, probes=wanted, cache=_cache(job))
        say(f"  {name:20} {len(images):9,} images {monotonic() - start:8.1f} s")
    return seen


def _accuracy_note(benchmark: Benchmark, sets: Sets, seen: Mapping[str, Output]) -> list[str]:
    """A warning, also given at once, when the network cannot be the one that was trained, or sees other images."""
    name, images = next((name, images) for name, (group, images) in sets.items() if group == "test")
    accuracy = (seen[name].logits_BC.argmax(1) == images.labels).double().mean().item()
    if accuracy >= (least := least_accuracy(benchmark)):
        return []
    note = (
        f"The accuracy is {100 * accuracy:.1f} %. Below {100 * least:.0f} % something is wrong: the network sees other images than "
        "in training (size, crop, normalisation, order of the classes), or is not trained. The other numbers then mean nothing."
    )
    warnings.warn(note, stacklevel=3)
    return [note]


def _rows(
    benchmark: Benchmark,
    model: Model,
    detectors: Mapping[str, Detector],
    sets: Sets,
    seen: Mapping[str, Output],
    job: Job,
    say: Say,
    refused: dict[str, str] | None,
) -> Iterator[list[Row]]:
    """Each detector's rows; one that cannot be used with this network goes to `refused`, or is an error where that is None."""
    known = {group: (seen[name], images.labels) for name, (group, images) in sets.items() if group in KNOWN}
    ood = {name: (group, seen[name]) for name, (group, _) in sets.items() if group in UNKNOWN}
    for name, detector in detectors.items():
        start = monotonic()
        try:
            measured = evaluate_outputs(
                known.get("train", known["test"]),  # without training images no detector learns
                known["test"],
                ood,
                {name: detector},
                head=head_of(model.network, model.loss),
                classifier=model.name,
                seed=job.seed,
                resamples=job.resamples,
                nearest=benchmark.nearest,
            )
        except ValueError as error:
            if refused is None:
                raise ValueError(f"{name}: {error}") from error
            refused[name] = str(error)
            continue
        say(f"  {name:20} {monotonic() - start:25.1f} s")
        yield measured.rows


def _facts(
    benchmark: Benchmark, model: Model, found: Sequence[Found], sets: Sets, job: Job, notes: Sequence[str]
) -> Json:
    return {
        "protocol": {"name": benchmark.name, "sha256": benchmark.digest},
        "model": {"name": model.name, "weights": hash_of(model.network)},
        "size": job.size, "crop": job.crop, "fit": job.fit, "most": job.most, "seed": job.seed, "resamples": job.resamples,
        "notes": list(notes),
        "sets": {
            f.set.name: {"group": f.set.group, "place": f.place, "list_sha256": f.sha256, "images": len(sets[f.set.name][1])}
            for f in found
        },
    }  # fmt: skip
