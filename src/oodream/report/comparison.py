"""Arms beside each other: all that was measured, differences over seeds, and the oracle's share; as Markdown
and as a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..functional.uncertainty import Difference, GainShare
from .contrasts import METRICS, Arm, Contrast, contrasts, metrics_for
from .remarks import about, in_points, notes, problems, trained_otherwise
from .tables import Cell
from .template import render

__all__ = [
    "comparison_page",
    "differences",
    "headline",
    "markdown",
    "measured",
    "share_figure",
    "share_figures",
    "share_text",
]

WIDTH, ROW = 520, 40  # of the figure of shares, and of an arm in it


# Markdown


def markdown(arms: Sequence[Arm]) -> str:
    """The headline, a table of the arms, one of differences for each metric, and what these mean."""
    by_metric = contrasts(arms)
    parts = [f"{_escaped(headline(arms, by_metric))}\n"]
    parts += [f"**{_escaped(problem)}**\n" for problem in problems(arms)]
    parts += [_table(*measured(arms)), *(f"{_escaped(text)}\n" for text in about(arms))]
    parts += [
        f"**{METRICS[metric]}**\n\n{_table(*differences(arms, part))}" for metric, part in by_metric.items()
    ]
    parts += [f"{_escaped(note)}\n" for note in notes(arms, by_metric)]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_escaped, cells))} |\n" for cells in lines)


def _escaped(text: str) -> str:
    """Text with names in it, of arms or folders, whose characters Markdown would take for its own."""
    return re.sub(r"[\\|<&*`~\[]", r"\\\g<0>", text)


def measured(arms: Sequence[Arm]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all that was measured."""
    columns = list(dict.fromkeys(name for arm in arms for name in arm.cells))
    kinds = list(dict.fromkeys(arm.kind for arm in arms))
    costs = ["synthesis, s", f"ms an {' or '.join(kinds)}", "training, s", "memory, GB"]

    def row(arm: Arm) -> list[str]:
        each = 1000 * arm.synthesis / arm.count if arm.count else 0
        cells = [arm.cells.get(name) for name in columns]
        return [
            arm.arm, str(arm.count), *(f"{m.text} {_spread(m)}".strip() if m else "–" for m in cells),
            f"{arm.synthesis:.1f}", f"{each:.0f}" if each else "–", f"{arm.training:.0f}",
            f"{arm.memory / 1e9:.2f}",
        ]  # fmt: skip

    counted = " or ".join(f"{kind}s" for kind in kinds)
    return ["arm", counted, *(f"{name}, %" for name in columns), *costs], [row(arm) for arm in arms]


def differences(arms: Sequence[Arm], part: Sequence[Contrast]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of one metric's contrasts; the share has a column where it is taken."""
    shared = any(contrast.share for contrast in part)
    head = [
        "arm",
        f"minus {arms[0].arm}",
        f"minus {arms[1].arm}",
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


def _difference(d: Difference | None) -> str:
    return "–" if d is None else in_points(d, f"; p = {d.p:.2g}" if d.p is not None else "")


def _spread(m: Cell) -> str:
    return m.spread if m.spread.startswith("±") else f"({m.spread})" if m.spread else ""


# The page


def comparison_page(
    title: str,
    arms: Sequence[Arm],
    links: Mapping[str, str],
    command: str,
    options: Mapping[str, Mapping[str, Any]],
) -> str:
    """One HTML page of a comparison, as `report` makes one of a run; `links` lead to the arms' reports, and
    `options` are those that each arm has of its own.
    """
    by_metric = contrasts(arms)
    return render(
        "comparison.html.j2",
        title=title,
        headline=headline(arms, by_metric),
        problems=problems(arms),
        figures=share_figures(by_metric),
        measured=measured(arms),
        differences={METRICS[metric]: differences(arms, part) for metric, part in by_metric.items()},
        about=about(arms),
        notes=notes(arms, by_metric),
        alike=not trained_otherwise(arms),
        links=links,
        command=command,
        options={name: json.dumps(own, ensure_ascii=False) for name, own in options.items()},
    )


def headline(arms: Sequence[Arm], by_metric: Mapping[str, Sequence[Contrast]]) -> str:
    """The first arm's share of the oracle's gain in a sentence, or its difference to the baseline in what it
    is for, each with its 95 % interval. Where that holds zero, the sentence first says that nothing is shown.
    """
    first = f"“{arms[1].arm}”"
    for metric, part in by_metric.items():
        if (share := part[0].share) and share.value is not None:
            gain = f"{share_text(share)} of the oracle’s gain in {METRICS[metric]}"
            if _holds_zero(share.interval):
                return f"It is not shown that {first} gains anything: {gain}."
            return f"{first} attains {gain}."
    for metric, part in by_metric.items():
        if difference := part[0].to_baseline:
            value, _, interval = in_points(difference).partition(" ")
            if difference.value == 0 or _holds_zero(difference.interval):
                return (
                    f"No difference between {first} and the {arms[0].arm} is shown in {METRICS[metric]}: "
                    f"{value} points {interval}."
                )
            return f"{first} beside the {arms[0].arm}: {value} points of {METRICS[metric]} {interval}."
    for metric in metrics_for(arms[1].kind):
        base, own = (arm.by_seed.get(metric, ()) for arm in arms[:2])
        if len(base) == len(own) == 1:
            return (
                f"One training each: {METRICS[metric]} {own[0]:.1f} % by {first}, {base[0]:.1f} % by the "
                f"{arms[0].arm}. Whether that is chance, --seeds 3 tells."
            )
    others = len(arms) - 1
    return f"{others} {'arm' if others == 1 else 'arms'} beside one {arms[0].arm}."


def _holds_zero(interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] <= 0 <= interval[1]


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
