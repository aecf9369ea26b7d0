"""`oodream compare`: several methods on one data set, one budget and the same seeds, in one table.

An arm is a run of its own in a folder of its own, whose options differ from the common ones. What two arms make from equal inputs
is made once: a finished stage of an earlier arm is linked, not repeated.
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
from ..core.options import overlay
from ..core.results import Row, row_from_json, shift_row_from_json
from ..core.types import Json
from ..functional.uncertainty import paired
from ..report.tables import Measure, measure, shifted
from .folder import RunDir
from .generated import imagined, slug
from .pipeline import DREAM, PLAIN, Pipeline

GROUPS = {
    "near": ("auroc", "fpr95_id", "fpr95_ood"),
    "far": ("auroc", "fpr95_id", "fpr95_ood"),
    "all": ("fpr95_id",),
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """An arm: how many outliers it was trained with, what was measured, and what it cost.

    `cells` are percent by name, with their spread; `headline` is the mean fpr95_id over all sets, in percent, by seed. The seconds
    are of drawing these outliers and of one training; `memory` is the most bytes that drawing or training held.
    """

    arm: str
    outliers: int
    cells: Mapping[str, Measure]
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
    """Runs every arm (resuming what is there) and writes `comparison.md` and `comparison.json`; returns the lines.

    Of several processes, which train and draw together, only the first one writes and has lines.

    The first line is the plain classifier. ConfigError names an option that an arm gets wrong, before any work.
    """
    pipelines = {}
    for name, options in arms.items():
        pipelines[name] = Pipeline(overlay(base, options), RunDir(folder / slug(name)), command)
    lines: list[Line] = []
    for i, (name, pipeline) in enumerate(pipelines.items()):
        if is_main():
            say(f"{name}: {pipeline.run.path}")
            earlier = [p.run for p in list(pipelines.values())[:i]]
            for stage in pipeline.stages.values():
                pipeline.run.borrow(stage.name, stage.inputs, earlier)
        barrier(pipeline.device)
        pipeline.go(say)
        if not is_main():
            continue
        if not lines:
            lines.append(line(PLAIN, pipeline, PLAIN))
        lines.append(line(name, pipeline, DREAM))
        write_json(folder / "comparison.json", [asdict(found) for found in lines])
        write_bytes(folder / "comparison.md", table(lines).encode())
    return lines


def line(name: str, p: Pipeline, kind: str) -> Line:
    """What a finished run measured of its plain or its regularised classifiers."""
    detector = p.config.evaluate.detectors[0]
    rows = [
        row_from_json(text) for text in (p.run / "results.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    means = [
        row for row in rows if row.dataset == "mean" and (row.classifier, row.detector) == (kind, detector)
    ]

    def of(group: str) -> list[Row]:
        return [row for row in means if row.group == group]

    cells = {"accuracy": measure(of("all"), "accuracy")}
    cells |= {
        f"{group} {metric}": measure(of(group), metric)
        for group, metrics in GROUPS.items()
        if of(group)
        for metric in metrics
    }
    shifts = [
        shift_row_from_json(text)
        for text in (p.run / "shifts" / "accuracy.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    cells |= {
        f"shifted {metric}": shifted(shifts, kind, metric) for metric in ("accuracy", "refused") if shifts
    }
    headline = tuple(100 * row.fpr95_id for row in sorted(of("all"), key=lambda row: row.seed))
    stamps = {stage: p.run.stamp(stage) or {"seconds": 0.0, "summary": {"memory": 0}} for stage in p.stages}
    trained = [stamps[f"classifier/{kind}-s{seed}"] for seed in range(p.config.seeds)]
    drawn, used, t = stamps[imagined(p.config.decode)], 0, p.config.train
    if kind == DREAM and t.ratio > 0:
        used = min(int(p.kept.sum()), t.most or len(p.outliers))
    return Line(
        arm=name, outliers=used, cells=cells, headline=headline,
        synthesis=drawn["seconds"] * used / len(p.outliers),
        training=fmean(stamp["seconds"] for stamp in trained),
        memory=max(stamp["summary"]["memory"] for stamp in [*trained, *([drawn] if used else [])]),
    )  # fmt: skip


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table; each but the first arm with its difference to that, by a paired test over the seeds."""
    columns = list(dict.fromkeys(name for found in lines for name in found.cells))
    first = next((found for found in lines if found.arm != PLAIN), None)
    against = f"all fpr95_id less that of {first.arm} (95 %)" if first else ""
    head = [
        "arm",
        "outliers",
        *(f"{name}, %" for name in columns),
        against,
        "synthesis, s",
        "ms an outlier",
        "training, s",
        "memory, GB",
    ]

    def row(found: Line) -> list[str]:
        each = 1000 * found.synthesis / found.outliers if found.outliers else 0
        cells = [found.cells.get(name) for name in columns]
        return [
            found.arm, str(found.outliers), *(f"{m.text} {_small(m)}".strip() if m else "–" for m in cells),
            _apart(first, found) if first else "–",
            f"{found.synthesis:.1f}", f"{each:.0f}" if each else "–", f"{found.training:.0f}", f"{found.memory / 1e9:.2f}",
        ]  # fmt: skip

    rows = [head, ["---"] * len(head), *map(row, lines)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def _apart(first: Line, found: Line) -> str:
    """The mean difference with its interval and p-value; a dash where there are not two seeds."""
    if found is first or len(found.headline) < 2 or len(found.headline) != len(first.headline):
        return "–"
    d = paired(first.headline, found.headline)
    return f"{d.value:+.1f} ({d.interval[0]:+.1f} to {d.interval[1]:+.1f}; p = {d.p:.2g})"


def _small(m: Measure) -> str:
    return m.spread if m.spread.startswith("±") else f"({m.spread})" if m.spread else ""


def read_arms(text: str) -> dict[str, Json]:
    """Arms from JSON: {"name": {option: value, …}, …}; ValueError when it is anything else."""
    arms = json.loads(text)
    if (
        not isinstance(arms, dict)
        or not arms
        or not all(isinstance(options, dict) for options in arms.values())
    ):
        raise ValueError(
            'Arms are written {"name": {"train": {"ratio": 1.0}}, …}: an object of options for each.'
        )
    if len({slug(name) for name in arms}) < len(arms):
        raise ValueError(f"Two arms would have one folder: {', '.join(arms)}. Name them apart.")
    return arms
