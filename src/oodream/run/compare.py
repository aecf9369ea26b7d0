"""`oodream compare`: several methods on one data set, one budget and the same seeds, in one table.

An arm is a run of its own in a folder of its own, whose options differ from the common ones. What two arms
make from equal inputs is made once: a finished stage of an earlier arm is linked, not repeated.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from ..audit.look import LOOK
from ..config import Config
from ..core.distributed import is_main
from ..core.errors import StoreError, brief, shown
from ..core.files import parse_json, write_bytes, write_json
from ..core.memory import out_of_memory
from ..core.options import ConfigError, overlay, to_json
from ..core.results import Row
from ..core.types import Json
from ..data.real import WORLD
from ..report.comparison import comparison_page, markdown
from ..report.contrasts import METRICS, Arm, contrasts
from ..report.tables import Cell, shift_groups, spread, summarize, summarize_shifts
from ..training.sources import Kind
from .artifacts import Run
from .check import check
from .folder import RunDir, check_place, read_manifest
from .generated import slug
from .job import Job
from .layout import BASELINE, REGULARIZED, classifier_stage, imagined_stage
from .plan import Plan
from .runner import CHANGED, go

__all__ = ["ArmError", "checked_arms", "compare", "measured_arm", "read_arms"]

GROUPS = {
    "near": ("auroc", "fpr95_id", "fpr95_ood"),
    "far": ("auroc", "fpr95_id", "fpr95_ood"),
    "all": ("fpr95_id",),
    "control": ("auroc",),
}
SHIFTED = "shifted"
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


def compare(
    base: Config,
    arms: Mapping[str, Mapping[str, Any]],
    folder: Path,
    command: str,
    say: Callable[[str], None],
    redo: Sequence[str] = (),
) -> list[Arm]:
    """Runs every arm (resuming what is there) and writes `comparison.md`, `comparison.html` and
    `comparison.json`; returns what was measured.

    `redo` names stages to make afresh in every arm that has them, as `runner.execute` does in a run.
    Every arm is checked before the first one starts: ConfigError or ValueError names the arm. Whatever an
    arm's run raises becomes an ArmError; the arms before it are in the comparison. The first one returned is
    the baseline classifier. Of several processes, which train and decode together, only the first
    one writes and returns any.
    """
    configs = checked_arms(base, arms, folder, redo)
    folders = {name: folder / slug(name) for name in configs}
    measured: list[Arm] = []
    for i, (name, config) in enumerate(configs.items()):
        earlier = [RunDir(path) for path in list(folders.values())[:i]]
        try:
            if is_main():
                say(f"{name}: {folders[name]}")
            job = Job(config, folders[name], command)
            run = go(job, say, redo=own_redo(job, redo), others=earlier)
            if not is_main():
                continue
            if not measured:
                measured.append(measured_arm(BASELINE, run, BASELINE))
            measured.append(measured_arm(name, run, REGULARIZED))
        except Exception as error:  # whatever an extension or a library raises
            raise ArmError(name, [other for other in arms if other != name], error) from error
        write(folder, measured, folders, command, arms)
    return measured


def own_redo(job: Job, redo: Sequence[str]) -> list[str]:
    """What an arm has of `redo`: arms of other methods have other stages."""
    return [stage for stage in redo if stage == CHANGED or Plan(job).has(stage)]


def checked_arms(
    base: Config, arms: Mapping[str, Mapping[str, Any]], folder: Path, redo: Sequence[str] = ()
) -> dict[str, Config]:
    """The arms' options; ConfigError or ValueError names an arm that cannot be run in its folder below
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
    for name, config in configs.items():
        try:
            check_place(folder / slug(name))
            read_manifest(folder / slug(name))
            check(Job(config, folder / slug(name)))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Arm {name!r}: {error}") from error
    check_redo([Job(config, folder / slug(name)) for name, config in configs.items()], redo)
    return configs


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


def write(
    folder: Path,
    arms: Sequence[Arm],
    folders: Mapping[str, Path],
    command: str,
    options: Mapping[str, Mapping[str, Any]],
) -> None:
    """The comparison of the arms so far, as JSON, Markdown and a page; `options` are each arm's own."""
    values = [{**asdict(arm), "contrasts": {}} for arm in arms]
    for metric, part in contrasts(arms).items():
        for value, contrast in zip(values[1:], part, strict=True):
            value["contrasts"][metric] = asdict(contrast)
    write_json(folder / "comparison.json", values)
    write_bytes(folder / "comparison.md", markdown(arms).encode())
    links = {arm.arm: f"{folders[arm.arm].name}/report/index.html" for arm in arms if arm.arm in folders}
    page = comparison_page(folder.name, arms, links, command, options)
    write_bytes(folder / "comparison.html", page.encode())


def measured_arm(name: str, run: Run, kind: str) -> Arm:
    """What a finished run measured of its baseline or its regularized classifiers."""
    config, detector = run.config, run.config.evaluate.detectors[0]
    rows = [r for r in run.rows() if (r.classifier, r.detector) == (kind, detector)]
    if not rows:
        raise ValueError(
            f"Arms are compared by the first of --evaluate.detectors, and {detector!r} was left out. Name "
            "another one first."
        )

    trained = [_stamp(run, classifier_stage(kind, seed)) for seed in range(config.seeds)]
    decoded = _stamp(run, imagined_stage(config.decode.output))
    used = max(trained[0]["summary"].get(f"{role}s", 0) for role in get_args(Kind))
    return Arm(
        arm=name,
        kind=run.kind,
        count=used,
        detector=detector,
        oracle=kind == REGULARIZED and config.regularize.outliers == "real",
        train=to_json(config.train),
        cells=cells(run, kind, rows),
        by_seed={metric: by_seed(run, kind, rows, metric) for metric in METRICS},
        synthesis=decoded["seconds"] * used / len(run.vectors) if run.imagines else 0.0,
        training=fmean(stamp["seconds"] for stamp in trained),
        memory=max(stamp["summary"]["memory"] for stamp in [*trained, *([decoded] if run.imagines else [])]),
        known=rows[0].n_id,
        sets=sets(rows),
        unknown=run.inputs.unknown,
    )


def sets(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many images each unknown set has, by its name by its group; near sets first."""
    single = [row for row in rows if row.group in ("near", "far") and row.dataset != "mean"]
    return {
        group: {row.dataset: row.n_ood for row in single if row.group == group}
        for group in dict.fromkeys(sorted((row.group for row in single), reverse=True))
    }


def cells(run: Run, kind: str, rows: Sequence[Row]) -> dict[str, Cell]:
    """What a run's classifiers of a kind measured, in means over sets and seeds: accuracy, then first what
    the run's outliers or inliers are for, the unknown (`rows`) or the shifted sets. Of these each folder, and
    all corruptions together, have cells of their own; where there are several, their mean comes first.
    """
    shifts = run.shift_rows()
    groups = {f" ({name})": group for name, group in shift_groups(shifts).items()}
    shifted = {
        f"{SHIFTED} {metric}{where}": summarize_shifts(group, kind, metric)
        for where, group in (({"": shifts} if len(groups) > 1 else {}) | groups).items()
        for metric in ("accuracy", "flagged")
    }
    unknown = {
        f"{group} {metric}": summarize(part, metric)
        for group, metrics in GROUPS.items()
        if (part := of_group(rows, group))
        for metric in metrics
    }
    named = {"accuracy": summarize(of_group(rows, "all"), "accuracy")}
    named |= unknown | shifted if run.kind == "outlier" else shifted | unknown
    return named | look_cells(run) if kind == REGULARIZED else named


def by_seed(run: Run, kind: str, rows: Sequence[Row], metric: str) -> tuple[float, ...]:
    """One of the `METRICS` in percent for each seed; empty where it was not measured."""
    group, _, field = metric.rpartition(" ")
    if group != SHIFTED:
        return tuple(100 * getattr(row, field) for row in of_group(rows, group or "all"))
    shifts = run.shift_rows()
    return tuple(
        summarize_shifts([row for row in shifts if row.seed == seed], kind, field).value
        for seed in sorted({row.seed for row in shifts})
    )


def of_group(rows: Sequence[Row], group: str) -> list[Row]:
    """The rows of a group's mean, or of the control, by seed."""
    wanted = [row for row in rows if row.group == group and (row.dataset == "mean" or group == "control")]
    return sorted(wanted, key=lambda row: row.seed)


def look_cells(run: Run) -> dict[str, Cell]:
    """How well the outliers' look tells them from known images; empty where the audit says nothing of it."""
    looks = [finding for finding in run.audit().findings if finding.kind == LOOK]
    return {"look auroc": spread([100 * looks[0].share], looks[0].interval)} if looks else {}


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


def _stamp(run: Run, stage: str) -> Json:
    return run.stamp(stage) or {"seconds": 0.0, "summary": {"memory": 0}}
