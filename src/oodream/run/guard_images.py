"""The images that a guard was made of, found again from what its folder or its run says of them, to put its
network into 8-bit integers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core.errors import DataError, StoreError, shown
from ..core.files import read_json
from ..core.types import Json
from ..data.images import Images
from ..data.inputs import NamedFolder, named_folders
from ..deploy.guard import Guard
from ..deploy.quantize import Int8Images
from .artifacts import Run
from .guard_inputs import GROUPS, GuardInputs, GuardJob

__all__ = ["FACTS", "facts_in", "images_of", "images_of_run", "inputs_of"]

FACTS = "report.json"
"""The file with the numbers of a guard's making."""
KEPT = (
    "data", "root", "classes", "unlabelled", "ood", "alpha", "confidence", "fit", "choose", "held_out",
    "seed",
)  # fmt: skip
"""What decides which images a job reads, and what for."""


def inputs_of(job: GuardJob, held_out: Images) -> Json:
    """What `images_of` needs to find a job's images again."""
    kept = {name: getattr(job, name) for name in KEPT}
    if Path(job.data).is_dir():
        kept["data"] = str(Path(job.data).resolve())
    folders = named_folders(job.ood, (), GROUPS)
    kept["ood"] = [f"{_label(one)}={one.folder.resolve()}" for one in folders]
    return {**kept, "identity": _identity(held_out)}


def facts_in(folder: Path) -> Json:
    """What a guard's folder says of its making; empty where it says nothing."""
    facts = read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    return facts if isinstance(facts, dict) else {}


def images_of(folder: Path, guard: Guard) -> Int8Images:
    """The images that a guard's detector was fitted to, those that it was calibrated on, and the unknown ones
    that it was measured on, or where there were none the disturbed ones that its detector was chosen on.

    Raises StoreError for a folder that says nothing of them, and DataError where they have changed.
    """
    if not isinstance(inputs := facts_in(folder).get("inputs"), dict):
        raise StoreError(
            f"--int8 needs the images that a guard was made of, and {shown(folder)} says nothing of them: it "
            "is neither a run nor what oodream guard of this version wrote."
        )
    job = _job(inputs, folder)
    sets = GuardInputs(job)
    fit, choose, held_out = sets.known(guard.size)
    if _identity(held_out) != inputs.get("identity") or len(held_out) != len(guard.held_out.score_N):
        raise DataError(
            f"The pictures in {shown(job.data)} have changed since this guard was calibrated on some of "
            "them, so its promise would not hold for a graph in integers. Make the guard again, by its "
            "command with --redo."
        )
    unknown = sets.unknown(fit, choose)
    return Int8Images(train=fit, held_out=held_out, ood=unknown.measure or unknown.choose)


def images_of_run(run: Run) -> Int8Images:
    """As `images_of`, for the guard of a run. Raises DataError where the known images are not those that its
    guard was made of.
    """
    inputs, stamp = run.inputs, run.stamp("guard")
    made_of = stamp["inputs"] if stamp else {}
    for key, what, images in (("images", "training", inputs.train), ("test", "test", inputs.test)):
        if images.fingerprint() != made_of.get(key):
            raise DataError(
                f"The {what} images in {shown(run.config.data)} have changed since the guard of "
                f"{shown(run.folder.path)} was made of them, so its promise would not hold for a graph in "
                f"integers. Make it again: {run.command} --redo changed"
            )
    return Int8Images(train=inputs.train, held_out=inputs.test, ood=inputs.ood)


def _job(inputs: Json, folder: Path) -> GuardJob:
    """A job that reads the same images, with nothing else of what the folder says: no network, no
    detector.
    """
    values: dict[str, Any] = {name: inputs[name] for name in KEPT if name in inputs}
    values["ood"] = tuple(values.get("ood", ()))
    return GuardJob(model="", out=folder, cache=folder, **values)


def _label(item: NamedFolder) -> str:
    """A set's group and name as an option says them; a name of several folders is found again."""
    return item.group if "/" in item.name else f"{item.group}:{item.name}"


def _identity(images: Images) -> str:
    """A hash of the images, wherever they are called from, without their labels, which may be the network's
    answers.
    """
    files = tuple(str(Path(file).resolve()) for file in images.files)
    return replace(images, labels=torch.zeros_like(images.labels), files=files).identity()
