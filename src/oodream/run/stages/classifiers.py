"""Stages that train: the latent adapter, baseline and regularized classifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ...core.distributed import is_main
from ...core.errors import listed
from ...core.registry import options_by_name
from ...core.tensors import load_tensors, save_tensors
from ...core.types import Json
from ...functional.metrics import auroc
from ...models.classifier import Classifier, load_teacher, quantile_threshold
from ...models.inference import Extractor, cost
from ...training.sources import (
    KnownPairs,
    LatentSet,
    Source,
    as_trained,
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
from ..job import Job
from ..layout import BASELINE, REGULARIZED, classifier_stage
from ..sources import shown_sources
from ._training import fraction, save_log

__all__ = [
    "check_teacher",
    "fit_adapter",
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
    known = as_trained(Source(role="known", data=job.inputs.train), job.config.train)
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
    parts = shown_sources(job)
    trained = train(
        parts, config, seed, job.device, job.layout.resume_state(stage), what, loss=loss,
        adapter=adapter(job), teacher=teacher(job, seed) if loss.teacher else None,
        stream=STREAMS[REGULARIZED].format(seed),
    )  # fmt: skip
    options = options_by_name("losses", c.loss, c.loss_options)[c.loss[0]]
    if not is_main():
        return {}
    beside, rejected = parts[-1], len(job.run.selection.curation.rejected)
    counts = {f"{beside.role}s": len(beside.data)} if job.run.beside else {}
    counts |= {"rejected": rejected} if rejected else {}
    counts |= {"added": len(job.run.added)} if len(job.run.added) else {}
    return keep(job, stage, trained, c.loss[0], options) | counts


def adapter(job: Job) -> AdapterMaker | None:
    """How latents reach the classifier; None where there are none, or where only losses see them."""
    c = job.config
    if not job.run.has_latents:
        return None
    learned = load_tensors(job.layout.adapter) if is_pretrained(c.latents) else None
    shape = tuple(job.run.known_latents(torch.tensor([0])).shape[1:])
    return adapter_maker(c.latents, shape, c.size, learned)  # type: ignore[arg-type]


def teacher(job: Job, seed: int) -> nn.Module:
    """The network to distil from."""
    if path := job.config.regularize.teacher:
        return load_teacher(Path(path))[0]
    return job.run.classifier(BASELINE, seed).network


def check_teacher(job: Job) -> None:
    """Raises ValueError unless the configured teacher has the same classes in the same order."""
    if not (path := job.config.regularize.teacher):
        return
    names, (_, taught) = job.book.names, load_teacher(Path(path))
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
    extractor = Extractor(network, device=job.device, cache=job.layout.cache)  # to be measured, too
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
