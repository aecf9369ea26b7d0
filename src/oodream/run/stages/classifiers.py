"""Stages that train: the latent adapter, baseline and regularized classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...core.distributed import is_main
from ...core.errors import listed
from ...core.registry import options_by_name
from ...core.tensors import load_tensors, save_tensors
from ...core.types import Json
from ...data.images import Images
from ...functional.metrics import auroc
from ...models.classifier import Classifier, load_classifier, quantile_threshold
from ...models.inference import Extractor, cost
from ...training.batches import as_shown
from ...training.detail import Detail
from ...training.sources import (
    KnownPairs,
    LatentSet,
    Source,
    imagined_source,
    known_as_outliers,
    real_outliers,
)  # fmt: skip
from ...training.train import (
    AdapterMaker,
    Trained,
    adapter_maker,
    is_pretrained,
    learn_adapter,
    make_loss,
    train,
)  # fmt: skip
from ..artifacts import Run
from ..job import Job
from ..layout import BASELINE, REGULARIZED, classifier_stage
from ._training import fraction, save_log

__all__ = [
    "check_teacher",
    "fit_adapter",
    "kept_rows",
    "lacks_outlier_images",
    "outlier_images",
    "train_baseline",
    "train_regularized",
]

# The random numbers of a training keep the names under which published results were made.
STREAMS = {BASELINE: "train plain (seed {})", REGULARIZED: "train dream (seed {})"}


def fit_adapter(job: Job) -> Json:
    """What a pretrained latent adapter learns, once for all classifiers."""
    images, pairs = job.inputs.train, load_tensors(job.layout.coloured_latents)
    known = KnownPairs(
        images=images,
        latents=LatentSet(labels=images.labels, read=job.run.known_latents),
        recolored_P3HW=pairs["images"],
        recolored_latents_PFHW=pairs["latents"],
    )
    c = job.config
    save_tensors(job.layout.adapter, learn_adapter(known, c.latents, c.train.backbone, c.seed, job.device))
    return {}


def train_baseline(job: Job, seed: int) -> Json:
    """A classifier of known images alone."""
    known = Source(role="known", data=job.inputs.train, soften=job.config.train.soften)
    loss = make_loss(("cross_entropy",))
    stage, what = classifier_stage(BASELINE, seed), f"train {BASELINE} (seed {seed})"
    trained = train(
        [known], job.config.train, seed, job.device, job.layout.resume_state(stage), what, loss=loss,
        stream=STREAMS[BASELINE].format(seed),
    )  # fmt: skip
    return keep(job, stage, trained, "cross_entropy", {}) if is_main() else {}


def train_regularized(job: Job, seed: int) -> Json:
    """A classifier of known images with what is imagined beside them, or with what stands in its place."""
    c, config = job.config.regularize, job.config.train
    loss = make_loss(c.loss, c.loss_options)
    stage, what = classifier_stage(REGULARIZED, seed), f"train {REGULARIZED} (seed {seed})"
    if c.finetune:
        config = replace(config, init=str(job.layout.classifier(BASELINE, seed)))
    parts = [replace(source, soften=config.soften) for source in sources(job)]
    trained = train(
        parts, config, seed, job.device, job.layout.resume_state(stage), what, loss=loss,
        adapter=adapter(job), teacher=teacher(job, seed) if loss.teacher else None,
        stream=STREAMS[REGULARIZED].format(seed),
    )  # fmt: skip
    options = options_by_name("losses", c.loss, c.loss_options)[c.loss[0]]
    if not is_main():
        return {}
    beside, rejected = parts[-1], len(job.run.selection.curation.rejected)
    counts = {f"{beside.role}s": len(beside.data)} | ({"rejected": rejected} if rejected else {})
    return keep(job, stage, trained, c.loss[0], options) | counts


def sources(job: Job) -> list[Source]:
    """What the regularized classifier is trained on; last what it is shown beside the known images."""
    c, run, images = job.config, job.run, job.inputs.train
    tokens_CD = normalize(run.book.tokens_CD, dim=1)
    known = Source(role="known", data=images, vectors=tokens_CD if run.kind == "outlier" else None)
    found = [known]
    detail = lost_detail(job) if c.reconstruct.detail else None
    if c.reconstruct.frac > 0:
        data, ratio = run.reconstructed("train"), c.reconstruct.frac
        found.append(Source(role="reconstructed", data=data, ratio=ratio, detail=detail))
    latents = LatentSet(labels=images.labels, read=run.known_latents) if run.has_latents else None
    if latents is not None:
        ratio = 0.0 if adapter(job) is None else c.latents.frac
        found.append(Source(role="known", data=latents, ratio=ratio))
    if real := job.inputs.real:
        return [*found, real_outliers(real, c.regularize, images)]
    drawn = run.imagines and c.regularize.outliers == "imagined" and latents is None
    beside = imagined(job, latents)
    return [*found, replace(beside, detail=detail) if drawn else beside]


def lost_detail(job: Job) -> Detail:
    """What the VAE loses of training images."""
    known = job.inputs.train.subset(load_tensors(job.layout.reconstructed("train"))["rows"])
    return Detail(known=known, reconstructed=job.run.reconstructed("train"))


def outlier_images(job: Job) -> Images:
    """The images that the regularized classifier is shown as unknown, as it is shown them but each once, for
    detectors that learn from outliers.

    Raises ValueError, which says why, for a run that has none.
    """
    if lacking := lacks_outlier_images(job.run):
        raise ValueError(f"There are no images of outliers: {lacking}.")
    return as_shown(sources(job)[-1], job.config.seed)


def lacks_outlier_images(run: Run) -> str:
    """Why a run has no images of outliers; empty where it has some."""
    if run.kind != "outlier":
        return f"this run imagines {run.kind}s"
    if run.has_latents:
        return "this run's outliers are latents (decode.output)"
    if run.config.regularize.outliers == "known":
        return "this run alters known images while it trains, in place of outliers"
    return ""


def kept_rows(run: Run) -> Tensor:
    """The imagined rows that stay. Raises ValueError where there are none."""
    rows = run.keep_mask.nonzero()[:, 0]
    if len(rows):
        return rows
    if rejected := run.selection.curation.rejected:
        raise ValueError(
            f"No {run.kind} is left: a person rejected {len(rejected)} of {len(run.vectors)}, and filters "
            "dropped the others. Keep some in the studio."
        )
    advice = {"outlier": "further from (a lower cosine)", "inlier": "nearer to (a higher cosine)"}[run.kind]
    raise ValueError(
        f"The filters kept no {run.kind}: sample {advice} the classes, or change filter.options."
    )


def imagined(job: Job, latents: LatentSet | None) -> Source:
    """The imagined rows that stay, or known ones in their place."""
    c, run = job.config.regularize, job.run
    rows = kept_rows(run)
    rows = rows[: c.max_outliers or None]
    least = job.config.latents.min_outlier_weight
    if c.outliers == "known":
        known = job.inputs.train if latents is None else latents
        return known_as_outliers(known, len(rows), c, job.inputs.train, min_weight=least)
    vectors = run.vectors.z_MD[rows] if run.kind == "outlier" else None
    latent = LatentSet(labels=run.vectors.y_M, read=run.latents) if run.has_latents else None
    data = run.images.subset(rows) if latent is None else latent.subset(rows)
    return imagined_source(data, run.kind, c, job.inputs.train, vectors=vectors, min_weight=least)


def adapter(job: Job) -> AdapterMaker | None:
    """How latents reach the classifier; None where there are none, or where only losses see them."""
    c = job.config
    if not job.run.has_latents:
        return None
    learned = load_tensors(job.layout.adapter) if is_pretrained(c.latents) else None
    shape = tuple(job.run.latents(torch.tensor([0])).shape[1:])
    return adapter_maker(c.latents, shape, c.size, learned)  # type: ignore[arg-type]


def teacher(job: Job, seed: int) -> nn.Module:
    """The classifier to distil from."""
    path = job.config.regularize.teacher
    classifier = load_classifier(Path(path), plugins=False) if path else job.run.classifier(BASELINE, seed)
    return classifier.network


def check_teacher(job: Job) -> None:
    """Raises ValueError unless the configured teacher has the same classes in the same order."""
    if not (path := job.config.regularize.teacher):
        return
    names, taught = job.book.names, load_classifier(Path(path), plugins=False).names
    if taught != names:
        raise ValueError(
            f"The teacher {path} knows {len(taught)} classes ({listed(taught)}), and this run has "
            f"{len(names)} ({listed(names)}). They must be the same, in the same order."
        )


def keep(job: Job, stage: str, trained: Trained, loss: str, options: Json) -> Json:
    """Saves a trained classifier with its threshold and log; returns what it does on test images, and what it
    costs.
    """
    network, test = trained.network, job.inputs.test
    extractor = Extractor(network, device=job.device)
    output, control = extractor(test), extractor(job.run.reconstructed("test"))
    energy_N, control_N = -output.logits_BC.logsumexp(1), -control.logits_BC.logsumexp(1)
    classifier = Classifier(
        network=network,
        loss=trained.loss,
        names=job.run.book.names,
        size=job.config.size,
        threshold=quantile_threshold(energy_N),
        white=job.inputs.train.white,
        settings={"backbone": job.config.train.backbone, "loss": loss, "loss_options": options},
    )
    classifier.save(job.layout.stage(stage))
    save_log(job, stage, trained.log)
    parameters, flop = cost(network, job.config.size)
    return {
        "accuracy": fraction(output.logits_BC.argmax(1) == test.labels),
        "reconstructed_id_auroc": round(auroc(energy_N, control_N), 4),
        "parameters": parameters,
        "mflop_an_image": round(flop / 1e6, 1),
    }
