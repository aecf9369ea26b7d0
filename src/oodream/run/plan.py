"""Which stages a configuration means, in their order, and what each is made from.

A stage's inputs are whole sections of the configuration, hashes of images and weights, and so, recursively,
the hashes of the stages before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config import Config
from ..core.options import to_json
from ..core.types import Decoder, Json
from ..data.corruptions import CORRUPTIONS, SEVERITIES
from ..models.factory import initial_weights_hash
from ..synthesis.decode import VAE, rendering
from ..synthesis.known import is_guided
from ..training.train import is_pretrained, make_loss
from .artifacts import named_extensions
from .curation import Curation
from .folder import inputs_hash
from .job import Job
from .layout import BASELINE, REGULARIZED, TWINS, classifier_stage, imagined_stage
from .sources import as_many
from .stage import Stage
from .stages import classifiers, images, results, vectors
from .twins import has_twins

__all__ = ["Plan", "drawn_after", "plugin_hashes", "section_inputs"]


class Plan:
    """A job's stages by name, in order."""

    def __init__(self, job: Job) -> None:
        self.stages = {stage.name: stage for stage in stages(job)}
        sections, code = section_inputs(job.config), plugin_hashes(job.config)
        self.inputs: dict[str, Json] = {}
        for name, stage in self.stages.items():
            after = {other: inputs_hash(self.inputs[other]) for other in stage.after}
            inputs = {**{section: sections[section] for section in stage.sections}, **stage.facts}
            if plugins := {
                key: value for key, value in code.items() if json.dumps(key) in json.dumps(inputs)
            }:
                inputs["plugins"] = plugins
            if stage.curated and (decided := self._curation(job)):
                inputs["curation"] = decided
            self.inputs[name] = {**inputs, "after": after}

    def _curation(self, job: Job) -> Json:
        """What people decided about the images that this plan means."""
        imagined = self.inputs[imagined_stage(job.config.decode.output)]
        return Curation(job.run.selection.decisions, inputs_hash(imagined)).inputs

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
            raise ValueError(f"There is no stage {name!r}. There are: {', '.join(self.stages)}.")
        return places

    def has(self, name: str) -> bool:
        """Whether there is a stage `name`, or one below the folder `name`."""
        return any(_is_of(stage, name) for stage in self.stages)


def _is_of(stage: str, name: str) -> bool:
    return stage == name or stage.startswith(f"{name}/")


def stages(job: Job) -> list[Stage]:
    """The stages of a job, each behind those it comes after."""
    book = job.book
    known = {"names": list(book.names), "prompts": list(book.prompts), "space": book.space}
    classes = Stage(name="classes", work=vectors.list_classes, facts=known)
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


def drawn_after(decoder: Decoder) -> tuple[str, ...]:
    """The stages that the imagined images come after."""
    return ("vectors", *([classifier_stage(BASELINE, 0)] if is_guided(decoder) else []))


def reconstruction_stages(job: Job) -> list[Stage]:
    """Known images through the decoder's VAE: those of the control, and a share of the training images."""
    facts = job.image_hashes | rendering(job.decoder) | _seed(job)
    stage = partial(Stage, after=("classes",), facts=facts, beside=True)
    return [
        stage(name="images/control", work=images.reconstruct_control),
        stage(name="images/reconstructed", work=images.reconstruct_known, sections=("reconstruct",)),
    ]


def vector_stages(job: Job) -> list[Stage]:
    """From the classes to imagined images or latents."""
    c, seed, train = job.config, _seed(job), {"images": job.image_hashes["images"]}
    drawn = partial(
        Stage, after=drawn_after(job.decoder), sections=("decode",), facts=rendering(job.decoder), shared=True
    )
    return [
        Stage(
            name="align",
            work=vectors.align_encoder,
            after=("classes",),
            sections=("align",),
            facts=train | seed,
            shared=True,
            narrow=True,
        ),
        Stage(name="features", work=vectors.embed_features, after=("align",)),
        Stage(
            name="vectors",
            work=vectors.sample_vectors,
            after=("features",),
            sections=("sample",),
            facts=seed,
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
    facts = {"images": job.image_hashes["images"]} | rendering(job.decoder) | _seed(job)
    encode = Stage(name="latents/known", work=images.encode_known, after=("classes",), facts=facts)
    if not is_pretrained(job.config.latents):
        return [encode]
    adapter = Stage(
        name="latents/adapter",
        work=classifiers.fit_adapter,
        after=("latents/known",),
        sections=("latents",),
        facts={"backbone": job.config.train.backbone} | _seed(job),
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
            facts={"seed": seed},
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
    real = {"real": job.inputs.real.fingerprint()} if job.inputs.real else {}
    added = {"added": job.run.added.fingerprint} if len(job.run.added) else {}
    known = {"known": as_many(job)} if job.run.beside == "known" else {}
    regularized = [
        Stage(
            name=classifier_stage(REGULARIZED, seed),
            work=partial(classifiers.train_regularized, seed=seed),
            after=(*common, *((classifier_stage(BASELINE, seed),) if needs_baseline else ())),
            sections=("train", "regularize", *(("latents",) if latents else ())),
            facts={"seed": seed} | known | real | added,
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
    c, seed, known = job.config, _seed(job), job.image_hashes
    sets = {s.name: [s.group, s.images.fingerprint()] for s in job.inputs.ood}
    shifted = {s.name: s.images.fingerprint() for s in job.inputs.shifted}
    audited = {"shifted": shifted} if shifted else {}
    corruptions = {"corruptions": list(CORRUPTIONS), "severities": list(SEVERITIES)}
    detector = {
        "detector": c.guard.detector or c.evaluate.detectors[0],
        "options": dict(c.evaluate.detector_options),
    }
    strips = Stage(
        name="strips",
        work=images.draw_strips,
        after=("vectors",),
        beside=True,
        sections=("decode", "report"),
        facts=seed | rendering(job.decoder),
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
            facts={"sets": sets} | seed,
        ),
        Stage(
            name="guard",
            work=results.calibrate_guard,
            after=(classifier_stage(REGULARIZED, 0),),
            sections=("guard",),
            facts=known | detector | seed,
        ),
        Stage(
            name="shift",
            work=results.measure_shift,
            after=trained,
            beside=True,
            sections=("shift",),
            facts={"sets": shifted, "test": known["test"]} | corruptions | seed,
        ),
        Stage(name="audit", work=results.audit_sets, after=("scores", *drawn), facts=seed | audited),
        Stage(
            name="report",
            work=results.write_report,
            after=("scores", "guard", "shift", "audit", *drawn),
            sections=("report",),
        ),
    ]


def _seed(job: Job) -> Json:
    return {"seed": job.config.seed}


def plugin_hashes(config: Config) -> dict[str, str]:
    """Hashes of the source files of all extensions that are named by their modules: the module's own, and
    where it lies in a package those beside it, which it may import.
    """
    hashes = {}
    for name in named_extensions(config):
        module = name.partition("@")[0].partition(":")[0]
        if ":" in name and (spec := find_spec(module)) and spec.origin and Path(spec.origin).is_file():
            source = Path(spec.origin)
            files = sorted(source.parent.glob("*.py")) if "." in module else [source]
            code = b"".join(file.name.encode() + file.read_bytes() for file in files)
            hashes[name] = hashlib.blake2b(code, digest_size=8).hexdigest()
    return hashes


def section_inputs(config: Config) -> dict[str, Json]:
    """The sections as inputs of stages. A hash stands for the weights that a training begins with, wherever
    these lie.

    The decoder's source is left out: its weights' hash is part of the class vectors' space. So is the place
    of its autoencoder: the stages that use it have its hash (see `rendering`). So is the place of real
    outliers: the hash of these images is an input of its own. So are options that a decoder is not given:
    what was drawn before decoders had some is not stale.
    """
    sections: dict[str, Any] = {
        key: value for key, value in to_json(config).items() if isinstance(value, dict)
    }
    del sections["decode"]["source"], sections["regularize"]["real"]
    sections["decode"]["options"].pop(VAE, None)
    if not sections["decode"]["options"]:
        del sections["decode"]["options"]
    for name, training in (("align", config.align), ("train", config.train)):
        sections[name]["init"] = initial_weights_hash(training.backbone, training.init)
    if teacher := config.regularize.teacher:
        sections["regularize"]["teacher"] = initial_weights_hash(config.train.backbone, teacher)
    return sections
