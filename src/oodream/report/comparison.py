"""Arms beside each other: all that was measured, differences over seeds, and the oracle's share; as Markdown
and as a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..functional.uncertainty import Difference, GainShare, gain_share, paired
from .tables import Cell
from .template import render

__all__ = [
    "METRICS",
    "Arm",
    "Contrast",
    "comparison_page",
    "contrasts",
    "differences",
    "headline",
    "markdown",
    "measured",
    "notes",
    "share_figure",
    "share_figures",
    "share_text",
]

METRICS = {
    "near auroc": "near AUROC",
    "near fpr95_id": "near fpr95_id",
    "all fpr95_id": "fpr95_id of all sets",
}
"""What differences are taken of, and what it is called."""
SHARED = ("near auroc", "near fpr95_id")
"""What the oracle's share is taken of."""
WIDTH, ROW = 520, 40  # of the figure of shares, and of an arm in it


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm: how many outliers it was trained with, what was measured, and what it cost.

    `cells` are percent by name, with their spread; `by_seed` are the numbers behind some of them, one for
    each seed. The `detector` gives the scores. An `oracle` is trained with real images of other things. The
    seconds are of decoding these outliers and of one training. `memory` is the most bytes that decoding or
    training held.
    """

    arm: str
    outliers: int
    detector: str = ""
    oracle: bool = False
    cells: Mapping[str, Cell]
    by_seed: Mapping[str, tuple[float, ...]]
    synthesis: float
    training: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An arm beside others by one metric: its difference to the baseline and to the first arm, in points, and
    its share of the oracle's gain.

    None stands where the other one is the arm itself, or is missing, or has other seeds.
    """

    arm: str
    to_baseline: Difference | None
    to_first: Difference | None
    share: GainShare | None


def contrasts(arms: Sequence[Arm]) -> dict[str, list[Contrast]]:
    """The contrasts of all arms behind the first of `arms`, which is the baseline, by metric.

    A metric that the baseline has no two seeds of is left out. The oracle is the first arm that is one.
    """
    baseline, *others = arms
    oracle = next((arm for arm in others if arm.oracle), None)
    return {
        metric: [_contrast(arm, baseline, others[0], oracle, metric) for arm in others]
        for metric in METRICS
        if len(baseline.by_seed.get(metric, ())) > 1
    }


def _contrast(arm: Arm, baseline: Arm, first: Arm, oracle: Arm | None, metric: str) -> Contrast:
    def comparable(*others: Arm | None) -> bool:
        """Whether the arm and all others have as many seeds, and more than one."""
        counts = {len(one.by_seed.get(metric, ())) if one else 0 for one in (arm, *others)}
        return len(counts) == 1 and min(counts) > 1

    def less(other: Arm) -> Difference | None:
        other_is_another = arm is not other and comparable(other)
        return paired(other.by_seed[metric], arm.by_seed[metric]) if other_is_another else None

    share = None
    if metric in SHARED and oracle and arm is not oracle and comparable(baseline, oracle):
        sign = 1 if metric.endswith("auroc") else -1  # of a gain
        base, own, best = ([sign * x for x in one.by_seed[metric]] for one in (baseline, arm, oracle))
        share = gain_share(base, own, best)
    return Contrast(arm=arm.arm, to_baseline=less(baseline), to_first=less(first), share=share)


# Markdown


def markdown(arms: Sequence[Arm]) -> str:
    """A table of the arms, one of differences for each metric, and what these mean."""
    by_metric = contrasts(arms)
    parts = [_table(*measured(arms))]
    parts += [
        f"**{METRICS[metric]}**\n\n{_table(*differences(arms, part))}" for metric, part in by_metric.items()
    ]
    parts += [f"{note}\n" for note in notes(arms, by_metric)]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def measured(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all that was measured."""
    columns = list(dict.fromkeys(name for arm in arms for name in arm.cells))
    costs = ["synthesis, s", "ms an outlier", "training, s", "memory, GB"]

    def row(arm: Arm) -> list[str]:
        each = 1000 * arm.synthesis / arm.outliers if arm.outliers else 0
        cells = [arm.cells.get(name) for name in columns]
        return [
            arm.arm, str(arm.outliers), *(f"{m.text} {_spread(m)}".strip() if m else "–" for m in cells),
            f"{arm.synthesis:.1f}", f"{each:.0f}" if each else "–", f"{arm.training:.0f}",
            f"{arm.memory / 1e9:.2f}",
        ]  # fmt: skip

    return ["arm", "outliers", *(f"{name}, %" for name in columns), *costs], [row(arm) for arm in arms]


def differences(arms: Sequence[Arm], part: Sequence[Contrast]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of one metric's contrasts; the share has a column where it is taken."""
    shared = any(contrast.share for contrast in part)
    head = [
        "arm",
        f"less {arms[0].arm}",
        f"less {arms[1].arm}",
        *(["share of the oracle's gain"] if shared else []),
    ]
    rows = [
        [
            c.arm,
            _difference(c.to_baseline),
            _difference(c.to_first),
            *([share_text(c.share)] if shared else []),
        ]
        for c in part
    ]
    return head, rows


def share_text(share: GainShare | None) -> str:
    """A share in percent with its interval, or that it is not defined; a dash where there is none."""
    if share is None:
        return "–"
    if share.value is None or share.interval is None:
        return "not defined"
    low, high = share.interval
    return f"{100 * share.value:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def notes(arms: Sequence[Arm], by_metric: Mapping[str, Sequence[Contrast]]) -> list[str]:
    """Whose scores are shown, what the differences and shares mean, and where a share is not defined."""
    texts = _detectors(arms)
    if not by_metric:
        return [*texts, "Differences between arms, and the oracle's share, take two seeds or more."]
    seeds = len(arms[0].by_seed[next(iter(by_metric))])
    texts += [
        f"Differences are in points, over the same {seeds} seeds, with 95 % intervals and p-values of a "
        "paired t-test. A higher AUROC is better, and a lower fpr95_id."
    ]
    oracle = next((arm.arm for arm in arms if arm.oracle), None)
    if oracle is None:
        return texts
    texts.append(
        f"The oracle is {oracle}: real images of other things in place of imagined outliers. The share of "
        f"its gain is (arm - {arms[0].arm}) / (oracle - {arms[0].arm}), below 0 where an arm does harm, with "
        "Fieller's 95 % interval over the seeds."
    )
    for metric in SHARED:
        gains = [c.share.reference for c in by_metric.get(metric, ()) if c.share and c.share.value is None]
        if gains:
            texts.append(
                f"In {METRICS[metric]} the share is not defined: the oracle itself gains "
                f"{_in_points(gains[0])}, which may be nothing."
            )
    return texts


def _detectors(arms: Sequence[Arm]) -> list[str]:
    """Which detector the numbers are of, in a sentence; none where no arm says it."""
    names = dict.fromkeys(arm.detector for arm in arms if arm.detector)
    if not names:
        return []
    of_arms = [f"{name} ({', '.join(a.arm for a in arms if a.detector == name)})" for name in names]
    which = next(iter(names)) if len(names) == 1 else "; ".join(of_arms)
    return [
        f"AUROC and fpr95_id are of the detector {which}, the first of evaluate.detectors; the arms' reports "
        "have the others."
    ]


def _difference(d: Difference | None) -> str:
    return "–" if d is None else _in_points(d, f"; p = {d.p:.2g}" if d.p is not None else "")


def _in_points(d: Difference, p: str = "") -> str:
    """The difference with its interval, and behind it what is said of its p-value."""
    if d.interval is None:
        return f"{d.value:+.1f} (the same for every seed)"
    return f"{d.value:+.1f} ({d.interval[0]:+.1f} to {d.interval[1]:+.1f}{p})"


def _spread(m: Cell) -> str:
    return m.spread if m.spread.startswith("±") else f"({m.spread})" if m.spread else ""


# The page


def comparison_page(title: str, arms: Sequence[Arm], links: Mapping[str, str], command: str) -> str:
    """One HTML page of a comparison, as `report` makes one of a run; `links` lead to the arms' reports."""
    by_metric = contrasts(arms)
    return render(
        "comparison.html.j2",
        title=title,
        headline=headline(arms, by_metric),
        figures=share_figures(by_metric),
        measured=measured(arms),
        differences={METRICS[metric]: differences(arms, part) for metric, part in by_metric.items()},
        notes=notes(arms, by_metric),
        links=links,
        command=command,
    )


def headline(arms: Sequence[Arm], by_metric: Mapping[str, Sequence[Contrast]]) -> str:
    """The first arm's share of the oracle's gain in a sentence, or what else there is to say of it."""
    for metric, part in by_metric.items():
        if (share := part[0].share) and share.value is not None:
            return f"“{arms[1].arm}” attains {share_text(share)} of the oracle’s gain in {METRICS[metric]}."
    for metric, part in by_metric.items():
        if difference := part[0].to_baseline:
            points = f"{difference.value:+.1f} points of {METRICS[metric]}"
            return f"“{arms[1].arm}” beside the {arms[0].arm}: {points}."
    others = len(arms) - 1
    return f"{others} {'arm' if others == 1 else 'arms'} beside one {arms[0].arm}."


def share_figures(by_metric: Mapping[str, Sequence[Contrast]]) -> dict[str, dict[str, Any]]:
    """The figures of those metrics, as they are called, of which a share of the gain is defined."""
    return {
        METRICS[metric]: share_figure(part)
        for metric, part in by_metric.items()
        if any(c.share and c.share.value is not None for c in part)
    }


def share_figure(part: Sequence[Contrast]) -> dict[str, Any]:
    """The shares of one metric as bars from 0 (the baseline) towards 1 (the oracle), with their intervals.

    Coordinates are those of an SVG. Each arm but the oracle has a row.
    """
    shares = [
        (c.arm, c.share, c.share.value, c.share.interval)
        for c in part
        if c.share and c.share.value is not None and c.share.interval
    ]
    ends = [end for *_, interval in shares for end in interval]
    low, high = min(0.0, *ends, 0.0), max(1.0, *ends, 1.0)
    scale = WIDTH / (1.04 * (high - low))

    def x(value: float) -> float:
        return round(scale * (value - low + 0.02 * (high - low)), 1)

    bars = [
        {
            "arm": arm,
            "text": share_text(share),
            "y": round(ROW * i, 1),
            "x": min(x(0), x(value)),
            "length": round(abs(x(value) - x(0)), 1),
            "loss": value < 0,
            "interval": [x(end) for end in interval],
        }
        for i, (arm, share, value, interval) in enumerate(shares)
    ]
    return {"width": WIDTH, "height": ROW * len(bars), "zero": x(0), "one": x(1), "bars": bars}
