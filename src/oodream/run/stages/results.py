"""Stages that measure and show: scores, guard, shift, audit, report."""

from __future__ import annotations

import warnings
from itertools import chain
from statistics import fmean

from ...core.files import write_bytes, write_json
from ...core.registry import make_all
from ...core.results import Row, ShiftRow, write_rows
from ...core.tensors import save_tensors
from ...core.types import Detector, Json
from ...data.images import ImageSet
from ...data.inputs import CONTROL
from ...deploy.guard import Guard, observed_half
from ...detection.detectors import probes_of, scores_of
from ...detection.evaluate import evaluate, shift_row
from ...detection.fit import uses_outliers
from ...detection.sanity import warn_of_upside_down
from ...models.inference import Extractor
from ...report.page import report
from ...report.tables import shift_groups
from ...runtime.calibration import least, least_alpha
from ..audit import audit_run
from ..job import Job
from ..lacking import lacks_outlier_images
from ..layout import REGULARIZED, classifier_stage
from ..lessons import own_lesson
from ..present import present

__all__ = [
    "audit_sets",
    "calibrate_guard",
    "evaluate_classifiers",
    "lacks_test_images",
    "measure_shift",
    "write_report",
]


def evaluate_classifiers(job: Job) -> Json:
    """Every detector on every classifier, on every OOD set and on the reconstructed-ID control."""
    c, rows, summary, upside_down = job.config.evaluate, list[Row](), {}, {}
    lacking = lacks_outlier_images(job.run)
    learning = [name for name, one in _detectors(job).items() if uses_outliers(one)]
    left_out = {name: f"it learns from images of outliers, and {lacking}" for name in learning if lacking}
    outliers = own_lesson(job) if learning and not lacking else None
    control = ImageSet(name=CONTROL, group="control", images=job.run.reconstructed("test"))
    for kind, seed in job.run.classifiers:
        classifier = job.run.classifier(kind, seed)
        measured = evaluate(
            classifier.extractor(job.device, job.layout.cache),
            {name: one for name, one in _detectors(job).items() if name not in left_out},
            fit=job.inputs.train,
            test=job.inputs.test,
            ood=[*job.inputs.ood, control],
            outliers=outliers,
            classifier=kind,
            seed=seed,
            resamples=c.resamples,
            fpr95_nearest=c.fpr95_nearest,
            warn=False,
        )
        rows += measured.rows
        for detector, scores in measured.scores.items():
            save_tensors(job.layout.scores(kind, seed, detector), scores)
        means = [row for row in measured.rows if row.group == "all"]
        row = next((row for row in means if row.detector == c.detectors[0]), means[0])
        headline = {
            "detector": row.detector,
            "fpr95_id": row.fpr95_id,
            "auroc": row.auroc,
            "accuracy": row.accuracy,
            "augrc": row.augrc,
        }
        skipped = left_out | measured.skipped
        upside_down[f"{kind}-s{seed}"] = measured.upside_down
        summary[f"{kind}-s{seed}"] = headline | {"skipped": skipped, "upside_down": measured.upside_down}
        for detector, reason in skipped.items():
            warnings.warn(f"{kind}-s{seed}: the detector {detector} is left out: {reason}", stacklevel=2)
    warn_of_upside_down(upside_down)
    write_rows(job.layout.results, rows)
    return summary


def calibrate_guard(job: Job) -> Json:
    """A guard of the first regularized classifier.

    Its threshold comes from the known test images, which no training has seen. The measured rows do not use
    it: they compare scores over all thresholds, or at those of their own sets.
    """
    if lacking := lacks_test_images(job):
        return {"none": lacking}
    c, e, test = job.config.guard, job.config.evaluate, job.inputs.test
    confidence = c.confidence or None
    name = c.detector or e.detectors[0]
    detector = _detectors(job)[name]
    outliers = own_lesson(job) if uses_outliers(detector) else None
    classifier = job.run.classifier(REGULARIZED, 0)
    extractor = classifier.extractor(job.device, job.layout.cache)
    try:
        guard = Guard.calibrate(
            classifier, detector, job.inputs.train, test, c.alpha, confidence, extractor,
            per_class=c.per_class, outliers=outliers,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(
            f"No guard can be made of the detector {name!r}: {error} Another is named with --guard.detector; "
            "without it the first one of --evaluate.detectors is taken."
        ) from error
    guard.save(job.layout.guard, classifier_stage(REGULARIZED, 0))
    score_N = scores_of(guard.detector, extractor(test, probes_of([guard.detector])))
    half = observed_half(score_N, c.alpha, confidence, job.config.seed)
    return {
        "threshold": round(guard.threshold, 4), "guarantee": str(guard.guarantee),
        "other_half": half and half.rate, "other_half_images": half and half.n,
    }  # fmt: skip


def lacks_test_images(job: Job) -> str:
    """Why there are too few known test images for a guard; empty where there are enough."""
    c, n = job.config.guard, len(job.inputs.test)
    confidence = c.confidence or None
    if n >= (needed := least(c.alpha, confidence)):
        return ""
    return (
        f"alpha {c.alpha:g} takes {needed} known test images to guarantee, and there are {n}, enough for "
        f"{least_alpha(n, confidence):g}"
    )


def _detectors(job: Job) -> dict[str, Detector]:
    """New detectors with the options of the configuration, by name."""
    c = job.config.evaluate
    return make_all("detectors", c.detectors, c.detector_options)


def measure_shift(job: Job) -> Json:
    """Accuracy on known classes that look otherwise: of each folder, and the mean over corruptions."""
    classifiers = {arm: job.run.classifier(*arm) for arm in job.run.classifiers}
    extractors = {arm: Extractor(c.network, device=job.device) for arm, c in classifiers.items()}
    rows: dict[tuple[str, int], list[ShiftRow]] = {arm: [] for arm in classifiers}
    for name, severity, images in job.inputs.shift_sets():
        for (kind, seed), extractor in extractors.items():
            output, threshold = extractor(images), classifiers[kind, seed].threshold
            row = shift_row(
                output, images.labels, threshold, classifier=kind, seed=seed, dataset=name, severity=severity
            )
            rows[kind, seed].append(row)
    write_rows(job.layout.shift_rows, chain.from_iterable(rows.values()))
    return {
        f"{kind}-s{seed} on {name}": round(fmean(r.accuracy for r in group), 4)
        for (kind, seed), part in rows.items()
        for name, group in shift_groups(part).items()
    }


def audit_sets(job: Job) -> Json:
    """What makes the numbers doubtful."""
    audit = audit_run(job.run)
    write_json(job.layout.audit, audit.to_json())
    return {"problems": len(audit["problem"]), "warnings": len(audit["warning"])}


def write_report(job: Job) -> Json:
    """The page that a person looks at."""
    decoder = job.decoder if job.run.has_latents else None
    page = report(present(job.run, job.inputs, job.device, decoder)).encode()
    write_bytes(job.layout.report, page)
    return {"bytes": len(page)}
