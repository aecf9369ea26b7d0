"""What is to be known of a comparison's numbers, in sentences: problems, what was measured, what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from ..core.errors import listed
from ..functional.uncertainty import Difference
from .contrasts import METRICS, SHARED, Arm, Contrast

__all__ = ["about", "in_points", "notes", "of_run", "problems", "trained_otherwise"]

COLUMNS = {
    "near": "near: unknown images that look like the known ones",
    "far": "far: unknown images that do not",
    "fpr95_id": "fpr95_id: unknown images accepted where 95 % of the known ones are",
    "fpr95_ood": "fpr95_ood: known images flagged where 95 % of the unknown ones are",
    "control": "control: reconstructed known images against known ones, 50 % where the decoder is not seen",
    "look": "look: outliers told from known images by grain, tone and the like, at 50 % where they are not",
}
"""What the words in the names of columns mean."""


def problems(arms: Sequence[Arm]) -> list[str]:
    """What the arms' audits say of what makes numbers wrong, in a text each, with the arms concerned."""
    said = _concerned({arm.arm: arm.problems for arm in arms})
    return [_problem(text, f" of {_quoted(names)}") for text, names in said.items()]


def of_run(problems: Sequence[str], warned: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be known of one run's numbers: what its audit calls problems, and what it is `warned` of, by
    kind of classifier; in a sentence each.
    """
    return [*map(_problem, problems), *_warned(warned)]


def _problem(text: str, audited: str = "") -> str:
    return f"A problem, says the audit{audited}: {text}"


def _warned(said: Mapping[str, Sequence[str]]) -> list[str]:
    """What is warned of, in a text each, with the arms or kinds of classifier concerned."""
    return [f"A warning of {_quoted(names)}: {text}" for text, names in _concerned(said).items()]


def _concerned(said: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each text that is said of arms, by their names, with the arms that it is said of."""
    arms_of: dict[str, list[str]] = {}
    for arm, texts in said.items():
        for text in dict.fromkeys(texts):
            arms_of.setdefault(text, []).append(arm)
    return arms_of


def _quoted(names: Sequence[str]) -> str:
    """Names of arms, which may hold commas, beside each other."""
    return ", ".join(f"“{name}”" for name in names)


def about(arms: Sequence[Arm]) -> list[str]:
    """What arms and columns are, what was measured on, whose scores are shown, which arms train otherwise or
    are equal, and what their runs warn of.
    """
    baseline = (
        f"The {arms[0].arm} is the classifier of known images alone; an arm's is trained with what its "
        "options put beside them. A higher AUROC or accuracy is better, and a lower fpr95_id or fpr95_ood."
    )
    more = (
        _cells(arms),
        _sets(arms[0]),
        _detectors(arms),
        trained_otherwise(arms),
        _equal(arms),
        _warned({arm.arm: arm.warned for arm in arms}),
    )
    return [baseline, *chain(*more)]


def notes(arms: Sequence[Arm], by_metric: Mapping[str, Sequence[Contrast]]) -> list[str]:
    """What the differences and shares mean, and where a share is not defined."""
    if not by_metric:
        return ["Differences between arms, and the oracle's share, take two seeds or more."]
    seeds = len(arms[0].by_seed[next(iter(by_metric))])
    texts = [
        f"Differences are in points, over the same {seeds} seeds, with 95 % intervals and p-values of a "
        "paired t-test."
    ]
    if seeds == 2:
        texts.append(
            "Two seeds tell little: an interval reaches 13 standard errors to either side, and may hold more "
            "points than there are. Take three or more."
        )
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
                f"{in_points(gains[0])}, which may be nothing."
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
    of_arms = [f"{name} ({_quoted([a.arm for a in arms if a.detector == name])})" for name in names]
    which = next(iter(names)) if len(names) == 1 else "; ".join(of_arms)
    under_shift = any(name.startswith("shifted flagged") for arm in arms for name in arm.cells)
    return [
        f"AUROC and fpr95_id are of the detector {which}, the first of evaluate.detectors; the arms' reports "
        f"have the others.{' Under shift, flagged is by the energy.' * under_shift}"
    ]


def trained_otherwise(arms: Sequence[Arm]) -> list[str]:
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
        f"{_quoted(names)}."
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


def in_points(d: Difference, p: str = "") -> str:
    """The difference with its interval, and behind it what is said of its p-value."""
    if d.interval is None:
        return f"{d.value:+.1f} (the same for every seed)"
    return f"{d.value:+.1f} ({d.interval[0]:+.1f} to {d.interval[1]:+.1f}{p})"
