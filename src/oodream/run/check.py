"""What can be known to be wrong before any work: data, names against the tokenizer, options, sizes of
classes.
"""

from __future__ import annotations

from ..core.registry import get, make_all
from ..models.factory import backbone
from ..synthesis.filters import make_filters
from ..training.loop import autocast
from ..training.train import NO_ADAPTER, make_loss
from .job import Job
from .stages.classifiers import check_teacher

__all__ = ["check"]


def check(job: Job) -> None:
    """Raises ValueError (DataError, PromptError, ConfigError among them) for what would fail later."""
    c, r = job.config, job.config.regularize
    job.inputs.check()
    job.sampler.check(job.inputs.train.labels, job.inputs.train.classes)
    loss = make_loss(r.loss, r.loss_options)
    if loss.outliers and job.sampler.kind != "outlier":
        raise ValueError(
            f"The loss {'+'.join(r.loss)} needs outliers, and the sampler gives {job.sampler.kind}s."
        )
    if loss.outliers and r.ratio == 0:
        raise ValueError(f"The loss {'+'.join(r.loss)} needs outliers: regularize.ratio must be above 0.")
    if job.run.has_latents and job.sampler.kind != "outlier":
        raise ValueError("Inliers are trained on as images; only outliers may be latents (decode.output).")
    if c.latents.adapter != NO_ADAPTER:
        get("latent_adapters", c.latents.adapter)
    make_filters(c.filter, job.sampler.kind)
    check_teacher(job)
    make_all("detectors", c.evaluate.detectors, c.evaluate.detector_options)
    if c.guard.detector and c.guard.detector not in c.evaluate.detectors:
        known = ", ".join(c.evaluate.detectors)
        raise ValueError(
            f"guard.detector is {c.guard.detector!r}, which is not evaluated; there are {known}."
        )
    for name in (c.align.backbone, c.train.backbone):
        backbone(name, 2)
    for optimisation in (c.align.optimisation, c.train.optimisation):
        autocast(optimisation.precision, job.device)
    _ = job.book, job.inputs.ood, job.inputs.shifted
