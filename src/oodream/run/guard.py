"""The verb behind `oodream guard`: a guard for a network that somebody has trained, with a report.

The network runs once over each image set, and its outputs are kept: what was stopped goes on, and another
choice of options costs a read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import registry
from ..core.device import device_of
from ..core.errors import listed
from ..core.files import check_new, check_way, shown
from ..core.options import ConfigError
from ..core.seeding import generator
from ..data.images import Images, ImageSet
from ..deploy.accuracy import Accuracy, measure_accuracy, other_normalisations
from ..deploy.guard import Guard, observed_half
from ..deploy.known import output_names, outputs_of
from ..deploy.measured import Measured
from ..detection.choose import choose_detector, without_labels
from ..detection.detectors import probes_of, scores_of
from ..detection.fit import Lesson
from ..functional.metrics import auroc, fpr95_id
from ..models.classifier import Classifier, is_classifier, open_classifier, quantile_threshold
from ..models.inference import Extractor, PatientExtractor
from ..models.opened import Opened, Said, open_network
from ..models.published import Triple
from .guard_inputs import DISTURBED, SUPPOSED, GuardInputs, GuardJob, read_labels
from .guard_made import facts_of, made_from
from .guard_page import Guarded, choice_in_words, write_guard

__all__ = ["CACHE", "Checked", "check_guard", "guard_network"]

CACHE = "guard-cache"  # a folder beside those of guards
TRIED = 200  # known images that other normalisations are tried on

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a guard is to be made of, found usable: detectors with their options, images and network."""

    options: dict[str, dict[str, Any]]
    inputs: GuardInputs
    subject: _Subject


def check_guard(job: GuardJob, say: Say = print) -> Checked:
    """Says what a job's network and images are, and opens no picture.

    Raises StoreError for a folder that holds something, ConfigError and ValueError for options and networks
    that cannot be used, DataError for images that cannot be.
    """
    if not job.redo or facts_of(job.out) is None:
        check_new(job.out)
    check_way(job.cache)
    options = registry.options_by_name("detectors", job.detectors, job.detector_options)
    device_of(job.device)
    inputs = GuardInputs(job)
    if not inputs.labelled:
        options = _without_labels(options)
    subject = _subject(job, inputs)
    for line in subject.lines(inputs):
        say(line)
    return Checked(options=options, inputs=inputs, subject=subject)


def guard_network(job: GuardJob, say: Say = print) -> Guarded:
    """Makes a guard as `job` says and writes its folder, which `Guard.load` reads, with a report.

    Raises what `check_guard` raises before any picture is opened. Raises ValueError where the network's
    accuracy shows that something is wrong (see `deploy.accuracy`), unless `any_accuracy` is set.
    """
    checked = check_guard(job, say)
    options, inputs, subject = checked.options, checked.inputs, checked.subject
    device, sources = device_of(job.device), made_from(job, inputs)  # before they are read
    classifier = subject.classifier
    extractor = PatientExtractor(classifier.network, loss=classifier.loss, device=device, cache=job.cache)
    fit, choose, held_out = known = inputs.known(classifier.size)
    if not inputs.labelled:
        fit, choose, held_out = (_as_predicted(images, extractor) for images in known)
    accuracy = _accuracy(subject, extractor, known) if inputs.labelled else None
    notes = (*subject.notes(inputs), *_accuracy_notes(accuracy, subject, job.any_accuracy))
    for note in notes:
        say(f"  note: {note}")
    about, unknown, real, teach = inputs.unknown(fit, choose)
    if isinstance(teach, Lesson):
        notes = (*notes, f"What teaches are {teach.remark}.")
        say(f"  note: {notes[-1]}")
    choice = choose_detector(
        extractor, options, fit=fit, known=choose, unknown=unknown, outliers=teach,
        leave_out=about == DISTURBED,
    )  # fmt: skip
    say(choice_in_words(choice, about))
    energy_N = -extractor(held_out).logits_BC.logsumexp(1)
    classifier = replace(classifier, threshold=quantile_threshold(energy_N), white=fit.white)
    confidence = job.confidence or None
    guard = Guard.calibrate(
        classifier, choice.best.detector, fit, held_out, job.alpha, confidence, extractor,
        per_class=job.per_class, labelled=inputs.labelled, outliers=teach,
    )  # fmt: skip
    sets = {"held out": held_out, **{one.name: one.images for one in real or unknown}}
    probes = probes_of([guard.detector])
    outputs = {name: extractor(images, probes) for name, images in sets.items()}
    scores = {name: scores_of(guard.detector, output) for name, output in outputs.items()}
    result = Guarded(
        guard=guard, opened=subject.opened, parts=inputs.parts, held_out=held_out, scores=scores,
        accuracy=accuracy, choice=choice, about=about, unknown=real or unknown,
        measured=[_measured(one, guard, outputs[one.name].logits_BC, scores) for one in real],
        other_half=observed_half(scores["held out"], job.alpha, confidence, job.seed), notes=notes,
        made_from=sources,
    )  # fmt: skip
    write_guard(result, job)
    return result


def _without_labels(options: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of the detectors that look at no labels; ConfigError where there are none."""
    names = without_labels(list(options))
    if not names:
        raise ConfigError(f"These pictures have no labels, and {listed(options)} cannot do without any.")
    return {name: options[name] for name in names}


# The network


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """The network that gets a guard, as a classifier.

    Class c is output `rows_C[c]` of so many `outputs`, and `remark` says what was supposed of these; without
    labels every output is a class.
    """

    opened: Opened
    classifier: Classifier
    rows_C: Tensor
    outputs: int
    remark: str

    @property
    def alphabetical(self) -> tuple[int, ...]:
        """Which of the classes' outputs each class is if these are in the order of the classes' names, as
        those of networks are that were trained on folders.
        """
        names, by_name = self.classifier.names, [0] * len(self.classifier.names)
        in_order = sorted(range(len(names)), key=names.__getitem__)
        for c, output in zip(in_order, self.rows_C.argsort().tolist(), strict=True):
            by_name[c] = output
        return tuple(by_name)

    def lines(self, inputs: GuardInputs) -> list[str]:
        p = self.opened.preprocessing
        crop = f", the middle of {p.resized}" if p.resized > p.size else ""
        return [
            f"{self.opened.name}: {len(self.classifier.names):,} classes, images of {p.size} pixels a "
            f"side{crop}",
            f"{inputs.name}: {inputs.parts}",
        ]

    def notes(self, inputs: GuardInputs) -> list[str]:
        """What a person must know before the network has seen an image."""
        p = self.opened.preprocessing
        remarks = [f"Of the network's pre-processing: {remark}." for remark in p.remarks]
        supposed = [self.remark] if self.remark else []
        return [*remarks, *supposed, *([] if inputs.has_splits else [SUPPOSED])]


def _subject(job: GuardJob, inputs: GuardInputs) -> _Subject:
    said = Said(size=job.size, crop=job.crop, mean=job.mean, std=job.std)
    labels = read_labels(job.labels) if job.labels else ()
    opened = _opened(job, said)
    outputs = opened.try_out().logits_BC.shape[1]
    names = labels or (opened.names if len(opened.names) == outputs else ())
    if labels and len(labels) != outputs:
        raise ValueError(
            f"{shown(job.labels or '')} names {len(labels)} outputs, and the network has {outputs}."
        )
    rows_C, remark = torch.arange(outputs), ""
    if inputs.labelled:
        matched = outputs_of(inputs.classes, names, outputs, inputs.name, inputs.other_names)
        opened.network.choose(matched.rows_C)
        classes, rows_C, remark = inputs.classes, matched.rows_C, matched.remark
    else:
        classes = output_names(names, outputs)
    settings = {**opened.settings, "loss": "cross_entropy", "loss_options": {}}
    classifier = Classifier(
        network=opened.network, loss=registry.make("losses", "cross_entropy"), names=tuple(classes),
        size=opened.preprocessing.resized, threshold=0.0, settings=settings,
    )  # fmt: skip
    return _Subject(opened=opened, classifier=classifier, rows_C=rows_C, outputs=outputs, remark=remark)


def _opened(job: GuardJob, said: Said) -> Opened:
    """The network of a job: somebody's, or that of a run's classifier."""
    folder = Path(job.model)
    if not is_classifier(folder):
        return open_network(job.model, job.weights, said, job.plugins)
    if job.weights is not None:
        raise ValueError(f"{shown(folder)} has weights of its own; leave --weights out.")
    return open_classifier(folder, said, job.plugins)


def _as_predicted(images: Images, extractor: Extractor) -> Images:
    """Images without labels, with the network's answers as such."""
    return replace(images, labels=extractor(images).logits_BC.argmax(1))


# Accuracy


def _accuracy(subject: _Subject, extractor: Extractor, known: Sequence[Images]) -> Accuracy:
    """The accuracy on the images that no detector is fitted to; what a low one looks like, where it is low or
    where somebody had to say how pixels are normalised.
    """
    fit, *others = known
    opened, likely = subject.opened, [subject.alphabetical]
    logits_NC = torch.cat([extractor(images).logits_BC for images in others])
    y_N = torch.cat([images.labels for images in others])
    accuracy = measure_accuracy((extractor(fit).logits_BC, fit.labels), logits_NC, y_N, likely)
    if not opened.network.normalises or (opened.normalised and not accuracy.at_chance):
        return accuracy
    rows = torch.randperm(len(others[-1]), generator=generator(0, "normalisations"))[:TRIED]
    some = others[-1].subset(rows, "other normalisations")

    def logits_with(mean: Triple, std: Triple) -> Tensor:
        opened.network.normalise(mean, std)
        return Extractor(opened.network, device=extractor.device, cache=extractor.cache)(some).logits_BC

    p = opened.preprocessing
    try:
        order_C = torch.tensor(accuracy.order or range(accuracy.classes))
        present = extractor(others[-1]).logits_BC[rows]
        better = other_normalisations(logits_with, order_C[some.labels], present)
    finally:
        opened.network.normalise(p.mean, p.std)
    return replace(accuracy, normalisations=better)


def _accuracy_notes(accuracy: Accuracy | None, subject: _Subject, any_accuracy: bool) -> list[str]:
    """What the accuracy says of the network; ValueError for what no guard should be made of."""
    if accuracy is None:
        return [
            "Without labels the accuracy is not measured, and nothing is known of the order of the classes."
        ]
    notes = []
    if accuracy.order:
        notes.append(_other_order(accuracy, subject))
    for name, value in list(accuracy.normalisations.items())[:1]:
        order = " in that order" if accuracy.order else ""
        notes.append(
            f"The pixels look as if they were normalised otherwise: with values {name} {value:.1%} of "
            f"{TRIED} images are named rightly{order}."
        )
    if accuracy.at_chance and not notes:
        notes.append(
            "Neither another order of the classes nor another usual normalisation mends it: are these the "
            "network's weights, and these its classes?"
        )
    wrong = accuracy.at_chance or accuracy.order or accuracy.normalisations
    chance = " That is no better than guessing." if accuracy.at_chance else ""
    if wrong and not any_accuracy:
        raise ValueError(
            " ".join([f"The accuracy is {accuracy.value:.1%} of {accuracy.n:,} images.{chance}", *notes])
            + " To make a guard all the same: --any-accuracy."
        )
    return ([f"The accuracy is {accuracy.value:.1%}.{chance}"] if wrong else []) + notes


def _other_order(accuracy: Accuracy, subject: _Subject) -> str:
    """In which order the classes would fit the network's outputs."""
    names, rows = subject.classifier.names, subject.rows_C.tolist()
    by_output = sorted(range(len(names)), key=lambda c: rows[accuracy.order[c]])
    file = "a file, one a line in the order of the network's outputs, and give it with --labels."
    if len(names) == subject.outputs:
        return (
            "The classes are in another order than the network's outputs: in the order "
            f"{listed(names[c] for c in by_output)} {accuracy.reordered:.1%} would be right. Write their "
            f"names into {file}{_doubt(accuracy, names)}"
        )
    moved = [(rows[accuracy.order[c]], names[c]) for c in by_output if accuracy.order[c] != c]
    return (
        "The network's outputs have other names: with "
        f"{listed(f'{name} as output {row}' for row, name in moved)}, counted from 0, "
        f"{accuracy.reordered:.1%} would be right. Write the names of all {subject.outputs:,} into {file}"
        f"{_doubt(accuracy, names)}"
    )


def _doubt(accuracy: Accuracy, names: Sequence[str]) -> str:
    """Which places in the better order are not certain."""
    if not accuracy.unsure:
        return ""
    which = listed(names[c] for c in accuracy.unsure)
    return (
        f" These images do not tell for certain which is which of {which}: look their places up where the "
        "network was trained."
    )


def _measured(unknown: ImageSet, guard: Guard, logits_MC: Tensor, scores: Mapping[str, Tensor]) -> Measured:
    known_N, scores_M = scores["held out"], scores[unknown.name]
    answers = guard.answers(guard.classifier.outputs(logits_MC, scores_M))
    return Measured(
        name=unknown.name, group=unknown.group, n=len(scores_M), auroc=auroc(known_N, scores_M),
        fpr95_id=fpr95_id(known_N, scores_M), flagged=sum(one.flagged for one in answers) / len(scores_M),
    )  # fmt: skip
