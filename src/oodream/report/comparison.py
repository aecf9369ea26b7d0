"""Arms beside each other: all that was measured, differences over seeds, and the oracle's share; as Markdown
and as a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import listed
from ..functional.uncertainty import Difference, GainShare
from .contrasts import METRICS, SHARED, Arm, Contrast, contrasts
from .tables import Cell
from .template import render

__all__ = [
    "comparison_page",
    "differences",
    "headline",
    "markdown",
    "measured",
    "notes",
    "share_figure",
    "share_figures",
    "share_text",
]

WIDTH, ROW = 520, 40  # of the figure of shares, and of an arm in it
COLUMNS = {
    "near": "near: unknown images that look like the known ones",
    "far": "far: unknown images that do not",
    "fpr95_id": "fpr95_id: unknown images accepted where 95 % of the known ones are",
    "fpr95_ood": "fpr95_ood: known images flagged where 95 % of the unknown ones are",
    "control": "control: reconstructed known images against known ones, 50 % where the decoder is not seen",
    "look": "look: outliers told from known images by grain, tone and the like, at 50 % where they are not",
}
"""What the words in the names of columns mean."""


# Markdown


def markdown(arms: Sequence[Arm]) -> str:
    """The headline, a table of the arms, one of differences for each metric, and what these mean."""
    by_metric = contrasts(arms)
    parts = [f"{_escaped(headline(arms, by_metric))}\n", _table(*measured(arms))]
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
    """What the columns are, what was measured on, whose scores are shown, which arms train otherwise or are
    equal, what the differences and shares mean, and where a share is not defined.
    """
    texts = [*_cells(arms), *_sets(arms[0]), *_detectors(arms), *_training(arms), *_equal(arms)]
    if not by_metric:
        return [*texts, "Differences between arms, and the oracle's share, take two seeds or more."]
    seeds = len(arms[0].by_seed[next(iter(by_metric))])
    texts += [
        f"Differences are in points, over the same {seeds} seeds, with 95 % intervals and p-values of a "
        "paired t-test. A higher AUROC or accuracy is better, and a lower fpr95_id."
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


def _cells(arms: Sequence[Arm]) -> list[str]:
    """What the table's numbers and columns are, in a sentence each; none where nothing was measured."""
    cells = [cell for arm in arms for cell in arm.cells.values()]
    words = {word for arm in arms for name in arm.cells for word in name.split()}
    said = [text for word, text in COLUMNS.items() if word in words]
    ranges = []
    if any(cell.spread.startswith("±") for cell in cells):
        ranges = ["± is the standard deviation over the seeds."]
    elif any(cell.spread for cell in cells):
        ranges = ["In brackets stand 95 % intervals over images, of one training."]
    return [*ranges, *([f"{'; '.join(said)}."] if said else [])]


def _sets(arm: Arm) -> list[str]:
    """The images that all arms are measured on, in a sentence; none where no unknown ones are."""
    if not arm.sets:
        return []
    named = [
        f"{group}: {', '.join(f'{name} {count:,}' for name, count in of_group.items())}"
        for group, of_group in arm.sets.items()
    ]
    classes = f" Unknown classes ({len(arm.unknown)}): {listed(arm.unknown)}." if arm.unknown else ""
    return [f"Measured on {arm.known:,} known images and on unknown ones, {'; '.join(named)}.{classes}"]


def _detectors(arms: Sequence[Arm]) -> list[str]:
    """Which detector the numbers are of, in a sentence; none where no arm says it."""
    names = dict.fromkeys(arm.detector for arm in arms if arm.detector)
    if not names:
        return []
    of_arms = [f"{name} ({', '.join(a.arm for a in arms if a.detector == name)})" for name in names]
    which = next(iter(names)) if len(names) == 1 else "; ".join(of_arms)
    under_shift = any(name.startswith("shifted flagged") for arm in arms for name in arm.cells)
    return [
        f"AUROC and fpr95_id are of the detector {which}, the first of evaluate.detectors; the arms' reports "
        f"have the others.{' Under shift, flagged is by the energy.' * under_shift}"
    ]


def _training(arms: Sequence[Arm]) -> list[str]:
    """Which arms are trained by other options than the baseline, in a sentence; none where all are alike."""
    others = {arm.arm: _other_options(arms[0].train, arm.train) for arm in arms}
    said = [f"{name} ({', '.join(options)})" for name, options in others.items() if options]
    if not said:
        return []
    return [
        f"Trained by other options than the {arms[0].arm}, so that differences to it are of these, too: "
        f"{'; '.join(said)}."
    ]


def _equal(arms: Sequence[Arm]) -> list[str]:
    """Which arms have the same numbers, in a sentence for each group of them."""
    groups: dict[str, list[str]] = {}
    for arm in arms:
        groups.setdefault(repr(sorted(arm.by_seed.items())), []).append(arm.arm)
    return [
        f"These have the same numbers for every seed, so that what they differ in does nothing here: "
        f"{', '.join(names)}."
        for names in groups.values()
        if len(names) > 1
    ]


def _other_options(first: Mapping[str, Any], second: Mapping[str, Any], at: str = "train") -> list[str]:
    """The names of options that are not the same; sections within are looked into."""
    names = []
    for key, value in first.items():
        if isinstance(value, Mapping):
            names += _other_options(value, second[key], f"{at}.{key}")
        elif value != second[key]:
            names.append(f"{at}.{key}")
    return names


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
        figures=share_figures(by_metric),
        measured=measured(arms),
        differences={METRICS[metric]: differences(arms, part) for metric, part in by_metric.items()},
        notes=notes(arms, by_metric),
        alike=not _training(arms),
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
            value, _, interval = _in_points(difference).partition(" ")
            if difference.value == 0 or _holds_zero(difference.interval):
                return (
                    f"No difference between {first} and the {arms[0].arm} is shown in {METRICS[metric]}: "
                    f"{value} points {interval}."
                )
            return f"{first} beside the {arms[0].arm}: {value} points of {METRICS[metric]} {interval}."
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
