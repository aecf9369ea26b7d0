"""What stages are made from besides the stages before them: whole sections of the configuration, hashes of
images, of weights and of the code of plug-ins, seeds, and what people decided.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..config import Config
from ..core.options import to_json
from ..core.types import Json
from ..data.corruptions import CORRUPTIONS, SEVERITIES
from ..models.factory import initial_weights_hash
from ..synthesis.decode import VAE, rendering
from .artifacts import named_extensions
from .curation import Curation
from .folder import inputs_hash
from .job import Job
from .sources import as_many

__all__ = [
    "audit_facts",
    "beside_facts",
    "class_facts",
    "curated",
    "guard_detector",
    "plugin_hashes",
    "reconstruction_facts",
    "section_inputs",
    "seed_of",
    "shift_facts",
    "training_images",
    "unknown_sets",
]


def curated(job: Job, imagined: Json) -> Json:
    """What people decided about the images that are made from these inputs."""
    return Curation(job.run.selection.decisions, inputs_hash(imagined)).inputs


def class_facts(job: Job) -> Json:
    """The classes, as the decoder's text encoder has them."""
    book = job.book
    return {"names": list(book.names), "prompts": list(book.prompts), "space": book.space}


def training_images(job: Job) -> Json:
    """The hash of the images for training."""
    return {"images": job.image_hashes["images"]}


def reconstruction_facts(job: Job) -> Json:
    """What reconstructions of known images are made from."""
    return job.image_hashes | rendering(job.decoder) | seed_of(job)


def beside_facts(job: Job, seed: int) -> Json:
    """What stands beside known images in a regularized classifier's training, where it is not imagined."""
    real = {"real": job.inputs.real.fingerprint()} if job.inputs.real else {}
    added = {"added": job.run.added.fingerprint} if len(job.run.added) else {}
    known = {"known": as_many(job)} if job.run.beside == "known" else {}
    return {"seed": seed} | known | real | added


def unknown_sets(job: Job) -> Json:
    """Group and hash of each OOD set."""
    return {s.name: [s.group, s.images.fingerprint()] for s in job.inputs.ood}


def shifted_sets(job: Job) -> Json:
    """The hash of each of the user's sets of known classes that look otherwise."""
    return {s.name: s.images.fingerprint() for s in job.inputs.shifted}


def guard_detector(config: Config) -> Json:
    """The detector of the guard, with the options of all detectors."""
    detector = config.guard.detector or config.evaluate.detectors[0]
    return {"detector": detector, "options": dict(config.evaluate.detector_options)}


def shift_facts(job: Job) -> Json:
    """What is measured of known classes that look otherwise."""
    sets = {"sets": shifted_sets(job), "test": job.image_hashes["test"]}
    return sets | {"corruptions": list(CORRUPTIONS), "severities": list(SEVERITIES)} | seed_of(job)


def audit_facts(job: Job) -> Json:
    """What is audited besides what the stages before it have read."""
    shifted = shifted_sets(job)
    return seed_of(job) | ({"shifted": shifted} if shifted else {})


def seed_of(job: Job) -> Json:
    """The run's seed."""
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
