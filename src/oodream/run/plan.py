"""Which stages a configuration means, in their order, and what each is made from.

A stage's inputs are whole sections of the configuration, its `facts`, and so, recursively, the hashes of the
stages before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, partial

from ..config import DecodeConfig
from ..core.errors import did_you_mean
from ..core.registry import get
from ..core.types import Json
from ..synthesis.decode import rendering
from ..synthesis.known import is_guided
from ..training.train import is_pretrained, make_loss
from .facts import (
    audit_facts,
    beside_facts,
    class_facts,
    curated,
    guard_detector,
    plugin_hashes,
    reconstruction_facts,
    section_inputs,
    seed_of,
    shift_facts,
    training_images,
    unknown_sets,
)
from .folder import inputs_hash
from .job import Job
from .layout import BASELINE, REGULARIZED, TWINS, classifier_stage, imagined_stage
from .stage import Stage
from .stages import classifiers, images, results, vectors
from .twins import has_twins

__all__ = ["Plan", "drawn_after"]


class Plan:
    """A job's stages by name, in order. Which these are its options say; what they are made from takes its
    images and its decoder, which are read for `inputs` alone.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.stages = {stage.name: stage for stage in stages(job)}

    @cached_property
    def inputs(self) -> dict[str, Json]:
        """What each stage is made from."""
        job, made_from = self._job, dict[str, Json]()
        sections, code = section_inputs(job.config), plugin_hashes(job.config)
        imagined = imagined_stage(job.config.decode.output)
        for name, stage in self.stages.items():
            after = {other: inputs_hash(made_from[other]) for other in stage.after}
            inputs = {**{section: sections[section] for section in stage.sections}, **stage.facts()}
            if plugins := {
                key: value for key, value in code.items() if json.dumps(key) in json.dumps(inputs)
            }:
                inputs["plugins"] = plugins
            if stage.curated and (decided := curated(job, made_from[imagined])):
                inputs["curation"] = decided
            made_from[name] = {**inputs, "after": after}
        return made_from

    def until(self, name: str) -> list[Stage]:
        """The stages up to `name`, or up to the last one below the folder `name`.

        Raises ValueError, which names them all, where there is no such stage.
        """
        last = max(self.positions(name))
        return list(self.stages.values())[: last + 1]

    def from_(self, names: Sequence[str]) -> list[Stage]:
        """The first of the stages `names` and all that follow; none where no name is given."""
        first = min((i for name in names for i in self.positions(name)), default=len(self.stages))
        return list(self.stages.values())[first:]

    def positions(self, name: str) -> list[int]:
        """The places of the stage `name`, or of the stages below the folder `name`."""
        places = [i for i, stage in enumerate(self.stages) if _is_of(stage, name)]
        if not places:
            hint = did_you_mean(name, self.stages)
            raise ValueError(f"There is no stage {name!r}.{hint} There are: {', '.join(self.stages)}.")
        return places

    def has(self, name: str) -> bool:
        """Whether there is a stage `name`, or one below the folder `name`."""
        return any(_is_of(stage, name) for stage in self.stages)


def _is_of(stage: str, name: str) -> bool:
    return stage == name or stage.startswith(f"{name}/")


def stages(job: Job) -> list[Stage]:
    """The stages of a job, each behind those it comes after."""
    classes = Stage(name="classes", work=vectors.list_classes, facts=partial(class_facts, job))
    imagined = vector_stages(job) if job.run.imagines else []
    latent = latent_stages(job)
    pretrained = any(stage.name == "latents/adapter" for stage in latent)
    trained = classifier_stages(job, pretrained)
    names = tuple(stage.name for stage in trained if stage.name.startswith("classifier/"))
    return in_order(
        [classes, *imagined, *latent, *reconstruction_stages(job), *trained, *result_stages(job, names)]
    )


def in_order(stages: Sequence[Stage]) -> list[Stage]:
    """The stages, each at the first place behind those it comes after, and else in the order given."""
    waiting, done = list(stages), dict[str, Stage]()
    while waiting:
        stage = next(stage for stage in waiting if done.keys() >= {*stage.after})
        done[stage.name] = stage
        waiting.remove(stage)
    return list(done.values())


def drawn_after(config: DecodeConfig) -> tuple[str, ...]:
    """The stages that the imagined images come after."""
    guided = is_guided(get("decoders", config.decoder))
    return ("vectors", *([classifier_stage(BASELINE, 0)] if guided else []))


def reconstruction_stages(job: Job) -> list[Stage]:
    """Known images through the decoder's VAE: those of the control, and a share of the training images."""
    stage = partial(Stage, after=("classes",), facts=partial(reconstruction_facts, job), beside=True)
    return [
        stage(name="images/control", work=images.reconstruct_control),
        stage(name="images/reconstructed", work=images.reconstruct_known, sections=("reconstruct",)),
    ]


def vector_stages(job: Job) -> list[Stage]:
    """From the classes to imagined images or latents."""
    c = job.config
    drawn = partial(
        Stage,
        after=drawn_after(c.decode),
        sections=("decode",),
        facts=lambda: rendering(job.decoder),
        shared=True,
    )
    return [
        Stage(
            name="align",
            work=vectors.align_encoder,
            after=("classes",),
            sections=("align",),
            facts=lambda: training_images(job) | seed_of(job),
            shared=True,
            narrow=True,
        ),
        Stage(name="features", work=vectors.embed_features, after=("align",)),
        Stage(
            name="vectors",
            work=vectors.sample_vectors,
            after=("features",),
            sections=("sample",),
            facts=partial(seed_of, job),
        ),
        drawn(name=imagined_stage(c.decode.output), work=images.decode_vectors),
        *([drawn(name=TWINS, work=images.draw_twins)] if has_twins(job.run) else []),
    ]


def latent_stages(job: Job) -> list[Stage]:
    """What is made where outliers stay latents: the known images' latents, and what a latent adapter learns
    first.
    """
    if not job.run.has_latents:
        return []
    encode = Stage(
        name="latents/known",
        work=images.encode_known,
        after=("classes",),
        facts=lambda: training_images(job) | rendering(job.decoder) | seed_of(job),
    )
    if not is_pretrained(job.config.latents):
        return [encode]
    adapter = Stage(
        name="latents/adapter",
        work=classifiers.fit_adapter,
        after=("latents/known",),
        sections=("latents",),
        facts=lambda: {"backbone": job.config.train.backbone} | seed_of(job),
    )
    return [encode, adapter]


def classifier_stages(job: Job, pretrained: bool) -> list[Stage]:
    """The baseline classifiers, the filter that the first of them serves, and the regularized classifiers."""
    c, latents, seeds = job.config, job.run.has_latents, range(job.config.seeds)
    imagined = imagined_stage(c.decode.output)
    baseline = [
        Stage(
            name=classifier_stage(BASELINE, seed),
            work=partial(classifiers.train_baseline, seed=seed),
            after=("images/control",),
            sections=("train",),
            facts=partial(dict, seed=seed),
            shared=True,
            beside=True,
            narrow=True,
        )
        for seed in seeds
    ]
    after = (imagined, classifier_stage(BASELINE, 0))
    kept = Stage(name="filter", work=images.filter_images, after=after, sections=("filter",))
    needs_baseline = c.regularize.finetune or make_loss(c.regularize.loss, c.regularize.loss_options).teacher
    drawn = (imagined if latents else "filter",) if job.run.imagines else ()
    common = (*drawn, *(("latents/known",) if latents else ()), "images/reconstructed", "images/control")
    common += ("latents/adapter",) if pretrained else ()
    common += (TWINS,) if has_twins(job.run) else ()
    regularized = [
        Stage(
            name=classifier_stage(REGULARIZED, seed),
            work=partial(classifiers.train_regularized, seed=seed),
            after=(*common, *((classifier_stage(BASELINE, seed),) if needs_baseline else ())),
            sections=("train", "regularize", *(("latents",) if latents else ())),
            facts=partial(beside_facts, job, seed),
            shared=True,
            beside=True,
            narrow=True,
            curated=job.run.imagines,
        )
        for seed in seeds
    ]
    return [*baseline, *([kept] if job.run.imagines and not latents else []), *regularized]


def result_stages(job: Job, trained: tuple[str, ...]) -> list[Stage]:
    """What is measured of the classifiers `trained`, deployed and shown."""
    strips = Stage(
        name="strips",
        work=images.draw_strips,
        after=("vectors",),
        beside=True,
        sections=("decode", "report"),
        facts=lambda: seed_of(job) | rendering(job.decoder),
    )
    shown = [strips] if job.run.imagines else []
    drawn = tuple(stage.name for stage in shown)
    return [
        *shown,
        Stage(
            name="scores",
            work=results.evaluate_classifiers,
            after=trained,
            sections=("evaluate",),
            facts=lambda: {"sets": unknown_sets(job)} | seed_of(job),
        ),
        Stage(
            name="guard",
            work=results.calibrate_guard,
            after=(classifier_stage(REGULARIZED, 0),),
            sections=("guard",),
            facts=lambda: job.image_hashes | guard_detector(job.config) | seed_of(job),
        ),
        Stage(
            name="shift",
            work=results.measure_shift,
            after=trained,
            beside=True,
            sections=("shift",),
            facts=partial(shift_facts, job),
        ),
        Stage(
            name="audit", work=results.audit_sets, after=("scores", *drawn), facts=partial(audit_facts, job)
        ),
        Stage(
            name="report",
            work=results.write_report,
            after=("scores", "guard", "shift", "audit", *drawn),
            sections=("report",),
        ),
    ]
