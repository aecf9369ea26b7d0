"""The arms of a comparison: what they may differ in, how they may be called, and what of them can be run."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..core.errors import StoreError, brief, shown
from ..core.files import parse_json
from ..core.memory import out_of_memory
from ..core.options import ConfigError, overlay, to_json
from ..core.types import Json
from ..data.inputs import DataInputs
from ..data.real import WORLD
from .check import check_inputs, check_options
from .folder import RunDir, check_place, read_manifest
from .generated import slug
from .job import Job, absolute
from .layout import BASELINE
from .plan import Plan
from .preview import preview_job
from .runner import CHANGED, refuse_stale, stages_afresh

__all__ = [
    "ArmError",
    "CheckedArms",
    "check_begun",
    "checked_arms",
    "of_arm",
    "own_redo",
    "preview_arms",
    "read_arms",
]

LONGEST = 100
"""characters of an arm's name, which tables and a folder have"""
MEASURE = ("evaluate", "shift")
"""The sections that say what is measured; all arms share them, but for `SCORES`."""
SCORES = ("evaluate.detectors", "evaluate.detector_options")
"""Options of `MEASURE` that an arm may have of its own: whose scores are taken belongs to a method."""


class ArmError(RuntimeError):
    """An arm's run ended with an error; the message names the arm, and says how the others can be run."""

    def __init__(self, arm: str, others: Sequence[str], error: Exception) -> None:
        in_words = isinstance(error, (ValueError, RuntimeError, OSError)) and str(error)
        said = str(error) if in_words else f"{type(error).__name__}: {error}."
        if out_of_memory(error):
            said = f"out of memory: {error}."
        advice = "What is finished is kept."
        if not isinstance(error, StoreError):  # which says itself what to do
            advice = "What is finished is kept: the same command again goes on from here."
        if others:
            advice += f" The other arms alone: --only {shlex.join(others)}."
        super().__init__(f"Arm {arm!r}: {said} {advice}")


@dataclass(frozen=True)
class CheckedArms:
    """The arms of a comparison by their names: their options, and the folder that theirs lie below."""

    configs: dict[str, Config]
    folder: Path
    inputs: DataInputs
    """of all arms: what one has read the others do not read again"""
    warned: dict[str, list[str]]
    """what the check of each warned of; of images that arms share, that of the first one"""

    def job(self, name: str, command: str = "") -> Job:
        """The arm's work."""
        return Job(self.configs[name], self.place(name), command, self.inputs)

    def place(self, name: str) -> Path:
        """The arm's folder."""
        return self.folder / slug(name)


def preview_arms(
    base: Config, arms: Mapping[str, Mapping[str, Any]], folder: Path, redo: Sequence[str],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Says of each arm that has been begun what would become of its stages, as `preview` does of a run.

    Raises what `compare` raises before any work.
    """
    checked = checked_arms(base, arms, folder, redo)
    for name in begun(checked):
        say(f"{name}:")
        with of_arm(name, arms):
            job = checked.job(name)
            preview_job(job, "report", own_redo(job, redo), say)


def check_begun(arms: CheckedArms, redo: Sequence[str]) -> None:
    """Raises ArmError for an arm some of whose stages were made with other options. Those that were begun
    with these are not looked into: their decoder would be read.
    """
    for name in begun(arms):
        job = arms.job(name)
        if (read_manifest(arms.place(name)) or {}).get("config") == to_json(job.config):
            continue
        with of_arm(name, arms.configs):
            plan = Plan(job)
            refuse_stale(job, plan, {*plan.stages} - stages_afresh(job, plan, own_redo(job, redo)))


def begun(arms: CheckedArms) -> list[str]:
    """The arms that have been begun."""
    return [name for name in arms.configs if RunDir(arms.place(name)).layout.manifest.exists()]


@contextmanager
def of_arm(name: str, arms: Collection[str]) -> Iterator[None]:
    """Within the block whatever is raised becomes an ArmError of this arm among the `arms`."""
    try:
        yield
    except Exception as error:  # whatever an extension or a library raises
        raise ArmError(name, [other for other in arms if other != name], error) from error


def own_redo(job: Job, redo: Sequence[str]) -> list[str]:
    """What an arm has of `redo`: arms of other methods have other stages."""
    return [stage for stage in redo if stage == CHANGED or Plan(job).has(stage)]


def checked_arms(
    base: Config, arms: Mapping[str, Mapping[str, Any]], folder: Path, redo: Sequence[str] = ()
) -> CheckedArms:
    """The arms; ConfigError or ValueError names an arm that cannot be run in its folder below
    `folder`, or not be compared with the others, or a stage to `redo` that no arm has.

    Warns of a common folder of real outliers that no arm takes.
    """
    configs = {}
    for name, options in arms.items():
        try:
            configs[name] = arm_config(base, options)
            check_comparable(base, configs[name])
        except ConfigError as error:
            raise ConfigError(f"Arm {name!r}: {error}") from error
    real = base.regularize.real
    if real and not any(config.regularize.real == real for config in configs.values()):
        warnings.warn(
            f"--regularize.real {shown(real)} is not used: no arm has real outliers (regularize.outliers) "
            "without a folder of its own.",
            stacklevel=2,
        )
    checked = CheckedArms(configs, folder, DataInputs(absolute(base)), {})
    for name in configs:  # of all arms what is known before an image is read
        with refused(name), heard() as checked.warned[name]:
            check_place(checked.place(name))
            read_manifest(checked.place(name))
            check_options(checked.job(name))
    check_redo([checked.job(name) for name in configs], redo)
    for name in configs:
        job = checked.job(name)
        with refused(name), heard() as more:
            check_inputs(job)
        checked.warned[name] += more
        checked = replace(checked, inputs=job.inputs)
    return checked


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is warned of within the block, each once; behind the block it is warned of as ever."""
    texts: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield texts
    finally:
        texts += dict.fromkeys(str(warning.message) for warning in caught)
        for text in texts:
            warnings.warn(text, stacklevel=3)


@contextmanager
def refused(name: str) -> Iterator[None]:
    """Within the block a reason not to run an arm becomes a ValueError that names it."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"Arm {name!r}: {error}") from error


def check_redo(jobs: Sequence[Job], redo: Sequence[str]) -> None:
    """Raises ConfigError, which names all stages, for a stage to `redo` that no job has."""
    if not (named := [stage for stage in redo if stage != CHANGED]):
        return
    plans = [Plan(job) for job in jobs]
    for stage in named:
        if not any(plan.has(stage) for plan in plans):
            known = ", ".join(dict.fromkeys(own for plan in plans for own in plan.stages))
            raise ConfigError(f"There is no stage {stage!r} in any arm. There are: {known}.")


def arm_config(base: Config, options: Mapping[str, Any]) -> Config:
    """The common options `base` with those of an arm laid over them; ConfigError for such as do not exist.

    A common folder of real outliers is for the arms that have some, and name no folder of their own.
    """
    real = base.regularize.real
    config = overlay(replace(base, regularize=replace(base.regularize, real="")), options)
    own = config.regularize
    if real and own.outliers == "real" and own.real in ("", WORLD):
        return replace(config, regularize=replace(own, real=real))
    return config


def check_comparable(base: Config, config: Config) -> None:
    """Raises ConfigError, which names the option, where an arm has other images or seeds than the common
    options, or is measured otherwise.
    """
    common, own = shared_options(base), shared_options(config)
    for name, value in own.items():
        if value != common[name]:
            raise ConfigError(
                f"{name} is {brief(value)}, and {brief(common[name])} for all arms, which could not be "
                "compared otherwise. Take it out of the arm, or give it to all arms on the command line "
                f"(--{name.replace('_', '-')})."
            )


def shared_options(config: Config) -> dict[str, Any]:
    """The options, by name, that all arms of a comparison share: those of no section, which say what images
    and seeds there are, and what is measured.
    """
    values = to_json(config)
    shared = {name: value for name, value in values.items() if not isinstance(value, dict)}
    for section in MEASURE:
        shared |= {f"{section}.{name}": value for name, value in values[section].items()}
    return {name: value for name, value in shared.items() if name not in SCORES}


def read_arms(text: str) -> dict[str, Json]:
    """Arms from JSON: {"name": {option: value, …}, …}.

    Raises ValueError when it is anything else, and for names that tables and folders could not have.
    """
    arms = parse_json(text)
    if (
        not isinstance(arms, dict)
        or not arms
        or not all(isinstance(options, dict) for options in arms.values())
    ):
        raise ValueError(
            'Arms are written {"name": {"regularize": {"ratio": 1.0}}, …}: an object of options for each.'
        )
    folders: dict[str, str] = {}
    for name in arms:
        if not any(map(str.isalnum, name)) or not name.isprintable() or len(name) > LONGEST:
            raise ValueError(
                f"No arm can be called {brief(name)}: a name has letters or digits, is on one line and is of "
                f"{LONGEST} characters at most."
            )
        if name.strip().casefold() == BASELINE:
            raise ValueError(
                f"No arm can be called {name!r}: so the classifier is called that all arms are compared with."
            )
        other = folders.setdefault(slug(name).casefold(), name)
        if other != name:
            raise ValueError(f"Two arms would have one folder: {other!r} and {name!r}. Name them apart.")
    return arms
