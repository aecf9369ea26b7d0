"""`oodream compare`: several methods on one data set, one budget and the same seeds, in one table.

An arm is a run of its own in a folder of its own, whose options differ from the common ones. What two arms
make from equal inputs is made once: a finished stage of an earlier arm is linked, not repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import Config
from ..core.distributed import barrier, is_main
from ..core.files import write_bytes, write_json
from ..core.options import ConfigError, overlay
from ..core.results import Row
from ..core.types import Json
from ..functional.uncertainty import paired
from ..report.tables import Cell, summarize, summarize_shifts
from .artifacts import Run
from .check import check
from .folder import RunDir, read_manifest
from .generated import slug
from .job import Job
from .layout import BASELINE, REGULARIZED, classifier_stage, imagined_stage
from .plan import Plan
from .runner import go

__all__ = ["Line", "compare", "read_arms", "table"]

GROUPS = {
    "near": ("auroc", "fpr95_id", "fpr95_ood"),
    "far": ("auroc", "fpr95_id", "fpr95_ood"),
    "all": ("fpr95_id",),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """An arm: how many outliers it was trained with, what was measured, and what it cost.

    `cells` are percent by name, with their spread. `headline` is the mean fpr95_id over all sets, in percent,
    by seed. The seconds are of decoding these outliers and of one training. `memory` is the most bytes that
    decoding or training held.
    """

    arm: str
    outliers: int
    cells: Mapping[str, Cell]
    headline: tuple[float, ...]
    synthesis: float
    training: float
    memory: int


def compare(
    base: Config,
    arms: Mapping[str, Mapping[str, Any]],
    folder: Path,
    command: str,
    say: Callable[[str], None],
) -> list[Line]:
    """Runs every arm (resuming what is there) and writes `comparison.md` and `comparison.json`; returns the
    lines.

    Every arm is checked before the first one starts: ConfigError or ValueError names the arm. The first line
    is the baseline classifier. Of several processes, which train and decode together, only the first one
    writes and has lines.
    """
    configs = {name: _arm(base, name, options) for name, options in arms.items()}
    folders = {name: folder / slug(name) for name in configs}
    for name, config in configs.items():
        try:
            read_manifest(folders[name])
            check(Job(config, folders[name], command))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Arm {name!r}: {error}") from error
    lines: list[Line] = []
    for i, (name, config) in enumerate(configs.items()):
        job = Job(config, folders[name], command)
        if is_main():
            say(f"{name}: {job.folder.path}")
            earlier = [RunDir(path) for path in list(folders.values())[:i]]
            for stage, inputs in Plan(job).inputs.items():
                job.folder.borrow(stage, inputs, earlier)
        barrier(job.device)
        run = go(job, say)
        if not is_main():
            continue
        if not lines:
            lines.append(line(BASELINE, run, BASELINE))
        lines.append(line(name, run, REGULARIZED))
        write_json(folder / "comparison.json", [asdict(one) for one in lines])
        write_bytes(folder / "comparison.md", table(lines).encode())
    return lines


def line(name: str, run: Run, kind: str) -> Line:
    """What a finished run measured of its baseline or its regularized classifiers."""
    config, detector = run.config, run.config.evaluate.detectors[0]
    means = [r for r in run.rows() if r.dataset == "mean" and (r.classifier, r.detector) == (kind, detector)]

    def of(group: str) -> list[Row]:
        return [row for row in means if row.group == group]

    cells = {"accuracy": summarize(of("all"), "accuracy")}
    for group, metrics in GROUPS.items():
        cells |= {f"{group} {metric}": summarize(of(group), metric) for metric in metrics if of(group)}
    shifts = run.shift_rows()
    cells |= {
        f"shifted {metric}": summarize_shifts(shifts, kind, metric)
        for metric in ("accuracy", "flagged")
        if shifts
    }
    trained = [_stamp(run, classifier_stage(kind, seed)) for seed in range(config.seeds)]
    decoded, used, r = _stamp(run, imagined_stage(config.decode.output)), 0, config.regularize
    if kind == REGULARIZED and r.ratio > 0:
        used = min(int(run.keep_mask.sum()), r.max_outliers or len(run.vectors))
    return Line(
        arm=name,
        outliers=used,
        cells=cells,
        headline=tuple(100 * row.fpr95_id for row in sorted(of("all"), key=lambda row: row.seed)),
        synthesis=decoded["seconds"] * used / len(run.vectors),
        training=fmean(stamp["seconds"] for stamp in trained),
        memory=max(stamp["summary"]["memory"] for stamp in [*trained, *([decoded] if used else [])]),
    )


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table; each but the first arm with its difference to that, by a paired test
    over the seeds.
    """
    columns = list(dict.fromkeys(name for one in lines for name in one.cells))
    first = next((one for one in lines if one.arm != BASELINE), None)
    against = f"all fpr95_id less that of {first.arm} (95 %)" if first else ""
    costs = ["synthesis, s", "ms an outlier", "training, s", "memory, GB"]
    head = ["arm", "outliers", *(f"{name}, %" for name in columns), against, *costs]

    def row(one: Line) -> list[str]:
        each = 1000 * one.synthesis / one.outliers if one.outliers else 0
        cells = [one.cells.get(name) for name in columns]
        return [
            one.arm, str(one.outliers), *(f"{m.text} {_small(m)}".strip() if m else "–" for m in cells),
            _difference(first, one) if first else "–",
            f"{one.synthesis:.1f}", f"{each:.0f}" if each else "–", f"{one.training:.0f}",
            f"{one.memory / 1e9:.2f}",
        ]  # fmt: skip

    rows = [head, ["---"] * len(head), *map(row, lines)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def read_arms(text: str) -> dict[str, Json]:
    """Arms from JSON: {"name": {option: value, …}, …}.

    Raises ValueError when it is anything else.
    """
    arms = json.loads(text)
    if (
        not isinstance(arms, dict)
        or not arms
        or not all(isinstance(options, dict) for options in arms.values())
    ):
        raise ValueError(
            'Arms are written {"name": {"regularize": {"ratio": 1.0}}, …}: an object of options for each.'
        )
    if len({slug(name) for name in arms}) < len(arms):
        raise ValueError(f"Two arms would have one folder: {', '.join(arms)}. Name them apart.")
    return arms


def _arm(base: Config, name: str, options: Mapping[str, Any]) -> Config:
    try:
        return overlay(base, options)
    except ConfigError as error:
        raise ConfigError(f"Arm {name!r}: {error}") from error


def _stamp(run: Run, stage: str) -> Json:
    return run.stamp(stage) or {"seconds": 0.0, "summary": {"memory": 0}}


def _difference(first: Line, other: Line) -> str:
    """The mean difference with its interval and p-value; a dash where there are not two seeds."""
    if other is first or len(other.headline) < 2 or len(other.headline) != len(first.headline):
        return "–"
    d = paired(first.headline, other.headline)
    return f"{d.value:+.1f} ({d.interval[0]:+.1f} to {d.interval[1]:+.1f}; p = {d.p:.2g})"


def _small(m: Cell) -> str:
    return m.spread if m.spread.startswith("±") else f"({m.spread})" if m.spread else ""
