"""`oodream compare`: several methods on one data set, one budget and the same seeds, in one table.

An arm is a run of its own in a folder of its own, whose options differ from the common ones. What two arms
make from equal inputs is made once: a finished stage of an earlier arm is linked, not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from ..audit.look import LOOK
from ..config import Config
from ..core.distributed import is_main
from ..core.files import write_bytes, write_json
from ..core.options import to_json
from ..core.results import Row
from ..core.types import Json
from ..report.comparison import comparison_page, markdown
from ..report.contrasts import METRICS, Arm, contrasts
from ..report.tables import Cell, shift_groups, spread, summarize, summarize_shifts
from ..training.sources import Kind
from .arms import check_begun, checked_arms, of_arm, own_redo
from .artifacts import Run
from .doubts import doubts, problems
from .folder import RunDir
from .layout import BASELINE, REGULARIZED, classifier_stage, imagined_stage
from .runner import go

__all__ = ["compare", "measured_arm"]

GROUPS = {
    "near": ("auroc", "fpr95_id", "fpr95_ood"),
    "far": ("auroc", "fpr95_id", "fpr95_ood"),
    "all": ("fpr95_id",),
    "control": ("auroc",),
}
SHIFTED = "shifted"


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
    Every arm is checked before the first one starts: ConfigError or ValueError names the arm, ArmError one
    that was begun with other options. Whatever an arm's run raises becomes an ArmError; the arms before it
    are in the comparison. The first one returned is the baseline classifier. Of several processes, which
    train and decode together, only the first one writes and returns any.
    """
    checked = checked_arms(base, arms, folder, redo)
    folders = {name: checked.place(name) for name in arms}
    if is_main():
        check_begun(checked, redo)
    measured: list[Arm] = []
    for i, name in enumerate(arms):
        earlier = [RunDir(path) for path in list(folders.values())[:i]]
        with of_arm(name, arms):
            if is_main():
                say(f"{name}: {folders[name]}")
            job = checked.job(name, command)
            run = go(job, say, redo=own_redo(job, redo), others=earlier)
            if not is_main():
                continue
            if not measured:
                measured.append(measured_arm(BASELINE, run, BASELINE))
            arm = measured_arm(name, run, REGULARIZED)
            measured.append(replace(arm, warned=(*checked.warned[name], *arm.warned)))
        write(folder, measured, folders, command, arms)
    return measured


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
        problems=problems(run) if kind == REGULARIZED else (),
        warned=(*doubts(run, kind, detector), *left_out(run, kind)),
    )


def left_out(run: Run, kind: str) -> tuple[str, ...]:
    """Which detectors were left out for a run's classifiers of a kind, and why, in a text for each."""
    measured = _stamp(run, "scores")["summary"]
    skipped = [measured.get(f"{kind}-s{seed}", {}).get("skipped", {}) for seed in range(run.config.seeds)]
    reasons = {name: reason for one in reversed(skipped) for name, reason in one.items()}
    return tuple(f"the detector {name} is left out: {reason}" for name, reason in reasons.items())


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


def _stamp(run: Run, stage: str) -> Json:
    return run.stamp(stage) or {"seconds": 0.0, "summary": {"memory": 0}}
