"""What can be known to be wrong before any work: data, names against the tokenizer, options, sizes of
classes.
"""

from __future__ import annotations

import warnings

from ..config import Config
from ..core.faults import blamed
from ..core.options import ConfigError
from ..core.registry import get, make, make_all
from ..core.types import Loss, Sizes
from ..detection.fit import uses_outliers
from ..models.factory import backbone
from ..synthesis.decoders.stable import StableDecoder
from ..synthesis.filters import make_filters
from ..synthesis.names import warn_of_names, warn_of_words
from ..training.known import KEEP_CLASS
from ..training.loop import autocast
from ..training.terms import build_loss
from ..training.train import NO_ADAPTER, make_loss
from .job import Job
from .lacking import lacks_outlier_images
from .stages.classifiers import check_teacher
from .stages.results import lacks_test_images
from .twins import has_twins

__all__ = ["check", "check_inputs", "check_options"]

FEW_STEPS = 100  # of a training: fewer are said


def check(job: Job) -> None:
    """`check_options`, and then `check_inputs`."""
    check_options(job)
    check_inputs(job)


def check_inputs(job: Job) -> None:
    """Raises ValueError (DataError, PromptError, ConfigError among them) for what would fail later with
    options that `check_options` has passed.

    What the folders of images hold comes first, then the decoder, and images last. Warns where the decoder's
    names do not fit the classes, and where there will be no guard.
    """
    c, r = job.config, job.config.regularize
    job.inputs.check()
    vectors = job.run.kind == "outlier" and job.run.imagines
    check_decoder_kind(job)
    build_loss(  # losses refuse what they cannot do with
        make_loss(r.loss, r.loss_options),
        Sizes(
            features=1,
            classes=len(job.book.names),
            text=job.book.tokens_CD.shape[1] if vectors else 0,
            teacher=1,
            names=1,
            latent=(4, 8, 8) if job.run.has_latents else None,
        ),
    )
    check_teacher(job)
    if job.run.imagines:
        with blamed(f"The sampler {c.sample.sampler!r}", job.sampler):
            job.sampler.check(job.inputs.train.labels, job.inputs.train.classes)
    warn_of_steps(job)
    if len(job.run.added):
        _ = job.run.added.images
    _ = job.book, job.inputs.real, job.inputs.ood, job.inputs.shifted
    warn_of_guard(job)
    # A decoder of another kind may leave `decode.source` unread.
    if job.run.imagines and isinstance(job.decoder, StableDecoder):
        warn_of_names(c.decode.source, job.book.names, job.inputs.unknown, job.inputs.source.other_names())
        warn_of_words(c.decode.source, job.sampled_words)
        warn_of_photographs(job)


def check_options(job: Job) -> None:
    """Raises ValueError (ConfigError among them) for options that do not go together, and for extensions that
    do not exist: all that is known before a folder of images is looked into.
    """
    c, r = job.config, job.config.regularize
    if job.run.imagines:
        make_filters(c.filter, job.run.kind)
    loss = make_loss(r.loss, r.loss_options)
    check_kind(job, loss)
    check_in_place(job, loss)
    if loss.outliers and r.ratio == 0:
        raise ValueError(f"The loss {'+'.join(r.loss)} needs outliers: regularize.ratio must be above 0.")
    if job.run.has_latents and job.run.kind != "outlier":
        raise ValueError("Inliers are trained on as images; only outliers may be latents (decode.output).")
    if job.run.has_latents and c.train.augmentation != "none":
        raise ConfigError(
            "Images can be augmented and latents cannot, and their look would tell them apart: leave "
            f"--train.augmentation {c.train.augmentation}, or draw images (--decode.output images)."
        )
    check_twins(job)
    check_adapter(c)
    check_detectors(job)
    warn_of_unmeasured(c)
    for name in (c.align.backbone, c.train.backbone):
        backbone(name, 2)
    for optimisation in (c.align.optimisation, c.train.optimisation):
        autocast(optimisation.precision, job.device)


def warn_of_unmeasured(c: Config) -> None:
    """Warns of folders to measure on beside --validate, which measures on none of them."""
    given = {"--ood": c.ood, "--shifted": c.shifted}
    if c.validate and (unread := [option for option, folders in given.items() if folders]):
        warnings.warn(
            f"{' and '.join(unread)} is not measured: --validate is for choosing, and reads no test set.",
            stacklevel=2,
        )


def warn_of_steps(job: Job) -> None:
    """Warns where so few images are trained on so few times that nothing could be learned."""
    images = len(job.inputs.train)
    epochs, each = job.config.train.optimisation.budget(images)
    if (steps := epochs * each) < FEW_STEPS:
        warnings.warn(
            f"Each classifier will be trained for {steps} steps alone: {epochs} epochs of {images:,} images. "
            "Train longer: --train.optimisation.min-steps 600, and --align.optimisation.min-steps.",
            stacklevel=2,
        )


def warn_of_guard(job: Job) -> None:
    """Warns where the known test images are too few for a guard."""
    if lacking := lacks_test_images(job):
        warnings.warn(
            f"There will be no guard: {lacking}. Add images, or give another --guard.alpha.", stacklevel=2
        )


def warn_of_photographs(job: Job) -> None:
    """Warns where the embedded decoder imagines beside images that may be photographs."""
    embedded = job.config.decode.source == "embedded" and not job.inputs.source.is_packaged
    if embedded and job.run.kind == "outlier":
        warnings.warn(
            "The embedded decoder has seen garments, drawings and emoji, and no photograph. Beside "
            "photographs its outliers win far-OOD, cost about two points of accuracy, and win or lose "
            "near-OOD by what is unknown (docs/results-detectors.md). For these name one that has seen such "
            "pictures (--preset folder-edited --decode.source FOLDER), or see first what it wins on known "
            "classes of yours (--validate CLASS).",
            stacklevel=2,
        )


def check_kind(job: Job, loss: Loss) -> None:
    """Raises ValueError (ConfigError among them) for a loss or an option of outliers beside inliers, or the
    other way round. Warns where the regularized classifier would be another baseline.
    """
    r, kind = job.config.regularize, job.run.kind
    if kind == "inlier" and loss.outliers:
        raise ValueError(
            f"The loss {'+'.join(r.loss)} needs outliers, and the sampler gives inliers: for these "
            "--regularize.loss cross_entropy."
        )
    if kind == "outlier" and r.inlier_weight != 1:
        raise ConfigError(
            "--regularize.inlier-weight weighs inliers, and there are none (sample.options kind)."
        )
    if not job.run.beside and r.loss == ("cross_entropy",):
        warnings.warn(
            "The loss cross_entropy takes no outliers, so nothing is imagined, and the regularized "
            "classifier is trained as the baseline is. Inliers come with --sample.options kind=inlier.",
            stacklevel=2,
        )


def check_decoder_kind(job: Job) -> None:
    """Raises ConfigError for a decoder of outliers beside inliers."""
    if job.run.imagines and getattr(job.decoder, "kind", job.run.kind) != job.run.kind:
        raise ConfigError(
            f"The decoder {job.config.decode.decoder!r} leads away from the class, and its images could be "
            "no inliers: --decode.decoder stable or image_to_image."
        )


def check_in_place(job: Job, loss: Loss) -> None:
    """Raises ValueError (ConfigError among them) for images in the place of imagined ones that would teach
    nothing or the wrong thing, and for a transform of known images that none of them goes through.
    """
    r, kind = job.config.regularize, job.run.kind
    if kind == "outlier" and not loss.outliers and r.outliers != "imagined":
        raise ValueError(
            f"The loss {'+'.join(r.loss)} uses no outliers: {r.outliers} ones would teach nothing."
        )
    if r.known_transform == "varied":
        return
    if r.outliers != "known":
        raise ConfigError(
            f"--regularize.known-transform {r.known_transform} takes --regularize.outliers known; it is "
            f"{r.outliers}."
        )
    if kind == "inlier" and r.known_transform not in KEEP_CLASS:
        raise ConfigError(
            f"Images that are {r.known_transform} show no class, and could be no inliers. In the place of "
            f"imagined ones --regularize.known-transform is one of {', '.join(KEEP_CLASS)}."
        )
    if job.run.has_latents:
        raise ConfigError("Latents of known images can be varied alone: leave --regularize.known-transform.")


def check_twins(job: Job) -> None:
    """Warns where twins are asked for, and nothing that is imagined could have some."""
    c, run = job.config, job.run
    if not c.reconstruct.twins or has_twins(run):
        return
    why = lacks_outlier_images(run, imagined=True) or "reconstruct.frac is 0"
    warnings.warn(f"reconstruct.twins draws no twins: {why}.", stacklevel=2)


def check_detectors(job: Job) -> None:
    """Raises ValueError for detectors that do not exist, and for a headline's or a guard's that could not be
    used.
    """
    c = job.config
    detectors = make_all("detectors", c.evaluate.detectors, c.evaluate.detector_options)
    if c.guard.detector and c.guard.detector not in c.evaluate.detectors:
        known = ", ".join(c.evaluate.detectors)
        raise ValueError(
            f"guard.detector is {c.guard.detector!r}, which is not evaluated; there are {known}."
        )
    lacking = lacks_outlier_images(job.run)
    for name in dict.fromkeys((c.evaluate.detectors[0], c.guard.detector or c.evaluate.detectors[0])):
        if lacking and uses_outliers(detectors[name]):
            raise ConfigError(
                f"The detector {name} learns from images of outliers, and {lacking}. It can be neither the "
                "first of evaluate.detectors nor guard.detector."
            )


def check_adapter(config: Config) -> None:
    """Raises ValueError for a latent adapter that does not exist, or does not fit network or options."""
    name, options = config.latents.adapter, config.latents.options
    if name == NO_ADAPTER:
        return
    get("latent_adapters", name)
    if config.decode.output == "latents":
        model = backbone(config.train.backbone, 2)
        make("latent_adapters", name, model=model, latent=(4, 8, 8), size=config.size, **options)
