"""The verb `report`: one self-contained HTML page from what a run made and measured.

The page loads nothing, runs no script and opens from a file. Its figures are SVG that the template draws from path strings made
here, so they follow the page's type and its light or dark colours. Nothing here measures: metrics arrive as rows, pictures as
tensors. Names, prompts and file names come from users, so the template escapes everything.
"""

from __future__ import annotations

import base64
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image

from .metrics import roc
from .types import Accuracy, Json, Row

ASSETS = Path(__file__).parent / "assets" / "report"
COLUMNS = {
    "fpr95_id": "FPR95, ID fixed", "fpr95_ood": "FPR95, OOD fixed", "auroc": "AUROC",
    "aupr_out": "AUPR, OOD positive", "aupr_in": "AUPR, ID positive", "accuracy": "ID accuracy",
}  # fmt: skip
THUMBNAIL = 128
MAP_POINTS = 4000
WARN_RECONSTRUCTED = 0.6


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """An image set the run was measured on: `group` is "id", "near" or "far", `n` its images, `description` one line."""

    name: str
    group: str
    n: int
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """One generated outlier beside the training image it was sampled around, with what is needed to draw it again.

    Images are uint8 (3, H, W). `row` and `knn` are those of `Outliers`, `cosine` is to the class vector T(y), `pipeline` the
    decoder's hash, `words` the vocabulary's nearest. `dropped` says why a filter took it out of training; empty when it was kept.
    """

    name: str
    image_3HW: torch.Tensor
    anchor_3HW: torch.Tensor
    row: int
    seed: int
    knn: float
    cosine: float
    prompt: str
    pipeline: str
    anchor_file: str
    words: Sequence[str] = ()
    dropped: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Pictures along a path through the latent space, uint8 (N, 3, H, W), with a short label for each."""

    about: str
    images_N3HW: torch.Tensor
    labels: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the final classifier says to one test image, uint8 (3, H, W).

    `truth` is what the image shows, `known` whether that is one of the classes, `verdict` the classifier's words: a class name,
    or "unknown" when `score` (higher for OOD) is above `threshold`.
    """

    image_3HW: torch.Tensor
    truth: str
    known: bool
    verdict: str
    score: float
    threshold: float

    @property
    def right(self) -> bool:
        """Whether a known image was given its class, or an unknown one refused."""
        accepted = self.score <= self.threshold
        return accepted and self.verdict == self.truth if self.known else not accepted


@dataclass(frozen=True, kw_only=True)
class LatentMap:
    """Two coordinates of N features and M outliers, with labels (positions in `Report.classes`).

    `dropped_M` (bool) marks outliers a filter took out; `method` says in a few words how the coordinates were made.
    """

    features_N2: np.ndarray
    y_N: np.ndarray
    outliers_M2: np.ndarray
    y_M: np.ndarray
    dropped_M: np.ndarray
    method: str


@dataclass(frozen=True, kw_only=True)
class FilterCount:
    """How many outliers of a class were drawn, and how many the filters kept for training."""

    drawn: int
    kept: int


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What an audit of the image sets says: `severity` is problem, warning or fine.

    `pairs` are two pictures, uint8 (3, H, W), that should not be two, and what to call them; `aurocs` in [0, 1] say by which
    statistics, and by all "together", the last of `sets` is told from the first whatever its pictures show.
    """

    kind: str
    sets: Sequence[str]
    severity: str
    message: str
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor, str]] = ()
    aurocs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows. What is empty leaves its section out.

    `classifiers` maps names to one line each, in order: the first is the baseline, the last the one the report is about.
    `rows` may hold several classifiers, detectors and seeds; means have `dataset` "mean" and `group` "near", "far" or "all".
    Rows of group "control" are listed apart, without a best.
    `detector` is the one the headline, the main table and `scores` are about; `scores` (N,), higher for OOD, are kept by
    classifier and set, the ID test set under "id".
    `class_samples` are images uint8 (K, 3, H, W) decoded from the plain class prompt, `strips` paths by class.
    `reconstructed_id` is, by classifier, the AUROC in [0, 1] of decoded-again ID images against ID images. `shifts` are accuracies
    on known classes that look otherwise. `kind` says whether "outlier"s or "inlier"s were imagined: with inliers the headline is
    about accuracy. `latents` says that they were trained on as latents. `audit` is what an audit of the sets found, worst first.
    `answers` are examples of what is deployed, and `promise` says what its limit keeps. The caller decides how many pictures there
    are.
    """

    title: str
    preset: str
    created: str
    command: str
    classes: Sequence[str]
    classifiers: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sets: Sequence[ImageSet] = ()
    rows: Sequence[Row] = ()
    shifts: Sequence[Accuracy] = ()
    kind: str = "outlier"
    latents: bool = False
    detector: str = "energy"
    scores: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    latent_map: LatentMap | None = None
    gallery: Sequence[Imagined] = ()
    class_samples: Mapping[str, torch.Tensor] = field(default_factory=dict)
    strips: Mapping[str, Sequence[Strip]] = field(default_factory=dict)
    answers: Sequence[Answer] = ()
    promise: str = ""
    reconstructed_id: Mapping[str, float] = field(default_factory=dict)
    filtered: Mapping[str, FilterCount] = field(default_factory=dict)
    audit: Sequence[Checked] = ()


def report(content: Report) -> str:
    """One HTML page as text; equal content gives equal text.

    Raises ValueError when no classifier is named, an image is not uint8 (3, H, W) or a score is not finite.
    """
    if not content.classifiers:
        raise ValueError("A report needs at least one classifier.")
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.FileSystemLoader(ASSETS), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {f.__name__: f for f in (png, duration, percent, signed, number, hue)}
    lines, shifts = measured_lines(content), shift_tables(content)
    refused = {name: shifted(content.shifts, name, "refused") for name in content.classifiers if shifts}
    return environment.get_template("index.html.j2").render(
        r=content, lines=lines, shifts=shifts, refused=refused, headline=headline(content, lines, shifts),
        key_figures=key_figures(content, lines),
        metrics=COLUMNS, detector=content.detector, base=next(iter(content.classifiers)), final=list(content.classifiers)[-1],
        figures=score_figures(content), map=drawn_map(content), config=json.dumps(content.config, indent=2, ensure_ascii=False,
        default=str), seeds=len({row.seed for row in content.rows}), warn_reconstructed=WARN_RECONSTRUCTED,
    )  # fmt: skip


# Numbers


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric in percent with an interval: `spread` is "± sd" over seeds, or the bootstrap's "low–high" for one seed."""

    value: float
    low: float
    high: float
    spread: str

    @property
    def text(self) -> str:
        return "–" if math.isnan(self.value) else f"{self.value:.1f}"


Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was measured on one set, or the mean of a group: `cells[metric][classifier, detector]`."""

    name: str
    group: str
    n: int
    description: str
    cells: Mapping[str, Mapping[Key, Measure]]

    def best(self, metric: str, keys: Sequence[Key]) -> set[Key]:
        """Those of `keys` with the best value, ties as printed; empty with nothing to compare, and for a control."""
        if self.group == "control":
            return set()
        cells = {k: c for k in keys if (c := self.cells[metric].get(k)) and not math.isnan(c.value)}
        pick = min if metric.startswith("fpr") else max
        top = pick((round(c.value, 1) for c in cells.values()), default=None)
        return {k for k, c in cells.items() if round(c.value, 1) == top} if len(cells) > 1 else set()


def spread(values: Sequence[float], interval: tuple[float, float] | None) -> Measure:
    """The mean of one value in percent for each seed, with their deviation, or with the interval (shares) of a single one."""
    mean = statistics.fmean(values)
    if len(values) > 1:
        sd = statistics.stdev(values)
        return Measure(value=mean, low=mean - sd, high=mean + sd, spread=f"± {sd:.1f}")
    if interval:
        low, high = (100 * bound for bound in interval)
        return Measure(value=mean, low=low, high=high, spread=f"{low:.1f}–{high:.1f}")
    return Measure(value=mean, low=mean, high=mean, spread="")


def measure(rows: Sequence[Row], metric: str) -> Measure:
    """The metric's mean over rows that differ by seed."""
    return spread([100 * getattr(row, metric) for row in rows], rows[0].intervals.get(metric))


def measured_lines(content: Report) -> list[Line]:
    """Lines in reading order: sets as `content.sets` lists them, near before far, each followed by its mean; controls last."""
    sets = {s.name: s for s in content.sets}
    order = {name: i for i, name in enumerate(sets)}
    groups = {"near": 0, "far": 1, "all": 3, "control": 4}
    found: dict[tuple[str, str], dict[Key, list[Row]]] = {}
    for row in content.rows:
        found.setdefault((row.group, row.dataset), {}).setdefault((row.classifier, row.detector), []).append(row)

    def place(group: str, name: str) -> tuple[int, str, bool, int]:
        return groups.get(group, 2), group, name == "mean", order.get(name, len(order))

    return [
        Line(
            name=name, group=group, description=sets[name].description if name in sets else "",
            n=max(row.n_ood for rows in by_key.values() for row in rows),
            cells={metric: {key: measure(rows, metric) for key, rows in by_key.items()} for metric in COLUMNS},
        )
        for (group, name), by_key in sorted(found.items(), key=lambda item: place(*item[0]))
    ]  # fmt: skip


def _mean_cells(content: Report, lines: Sequence[Line], group: str, metric: str) -> list[Measure]:
    """The baseline's and the final classifier's mean over a group (one when they are the same), as far as measured."""
    line = next((line for line in lines if line.name == "mean" and line.group == group), None)
    names = list(content.classifiers)
    cells = line.cells[metric] if line else {}
    return [cells[name, content.detector] for name in dict.fromkeys((names[0], names[-1])) if (name, content.detector) in cells]


@dataclass(frozen=True, kw_only=True)
class ShiftTable:
    """Accuracies on sets of one sort: `cells[set][column][classifier]`, and how many images a set has."""

    cells: Mapping[str, Mapping[str, Mapping[str, Measure]]]
    n: Mapping[str, int]


def shifted(found: Sequence[Accuracy], classifier: str, metric: str, interval: tuple[float, float] | None = None) -> Measure:
    """The mean over shifted sets of a classifier's "accuracy" or "refused", in percent, with the spread over seeds."""
    mine = [a for a in found if a.classifier == classifier]
    seeds = sorted({a.seed for a in mine})
    return spread([100 * statistics.fmean(getattr(a, metric) for a in mine if a.seed == seed) for seed in seeds], interval)


def shift_tables(content: Report) -> list[ShiftTable]:
    """The corruptions by severity, with means over rows and columns, then the other shifted sets."""

    def measured(found: Sequence[Accuracy]) -> dict[str, Measure]:
        # Corruptions share their images: their intervals say nothing about that of a mean, and would fill the table.
        interval = None if found[0].severity else found[0].interval
        return {name: shifted(found, name, "accuracy", interval) for name in content.classifiers}

    tables = []
    for part in ([a for a in content.shifts if a.severity], [a for a in content.shifts if not a.severity]):
        columns: dict[str, set[int]] = {f"severity {s}" if s else "accuracy": {s} for s in sorted({a.severity for a in part})}
        rows = {a.dataset: {a.dataset} for a in part}
        if any(a.severity for a in part):
            columns, rows = {"mean": set.union(*columns.values())} | columns, rows | {"mean": set(rows)}
        cells = {
            name: {c: measured([a for a in part if a.dataset in sets and a.severity in s]) for c, s in columns.items()}
            for name, sets in rows.items()
        }
        if part:
            tables.append(ShiftTable(cells=cells, n={a.dataset: a.n for a in part}))
    return tables


def headline(content: Report, lines: Sequence[Line], shifts: Sequence[ShiftTable]) -> tuple[str, str]:
    """The result in one plain sentence, and one about how sure it is."""
    baseline = next(iter(content.classifiers))
    if content.kind == "inlier" and shifts and (mean := shifts[0].cells.get("mean")):
        base, final = mean["mean"][baseline], mean["mean"][list(content.classifiers)[-1]]
        clean = _mean_cells(content, lines, "all", "accuracy")
        text = f"Names {final.text}\u00a0% of corrupted images rightly, where {baseline} does {base.text}\u00a0%"
        text += f"; of undisturbed ones {clean[-1].text}\u00a0% vs {clean[0].text}\u00a0%." if clean else "."
        return text, how_sure(base, final)
    accepted = _mean_cells(content, lines, "all", "fpr95_id")
    accuracy = _mean_cells(content, lines, "all", "accuracy")
    if lines and not accepted:
        return f"No mean over all unknown images was measured with the {content.detector} score.", ""
    if not accepted:
        return "No unknown images were given, so nothing is known yet about how well this classifier refuses them.", ""
    base, final = accepted[0], accepted[-1]
    condition = "while still accepting 95\u00a0% of known ones"
    if len(accepted) == 1:
        text = f"Accepts {final.text}\u00a0% of unknown images {condition}; accuracy {accuracy[-1].text}\u00a0%"
        return text + ".", f"Interval {final.spread}." if final.spread else ""
    comparison = "instead of" if final.value < base.value else f"where {baseline} accepts"
    text = (
        f"Accepts {final.text}\u00a0% of unknown images {comparison} {base.text}\u00a0% {condition}; "
        f"accuracy {accuracy[-1].text}\u00a0% vs {accuracy[0].text}\u00a0%."
    )
    return text, how_sure(base, final)


def how_sure(base: Measure, final: Measure) -> str:
    """Both values with their intervals, and whether these overlap; empty where there are none."""
    if not (base.spread and final.spread):
        return ""
    sure = "The intervals overlap: this difference may be chance." if final.high >= base.low and base.high >= final.low else ""
    return f"{final.text} ({final.spread}) against {base.text} ({base.spread}). {sure}".strip()


def key_figures(content: Report, lines: Sequence[Line]) -> list[tuple[str, list[Measure]]]:
    """What the figures are called, and the baseline's and the final classifier's value."""
    wanted = {
        "unknown images accepted": ("all", "fpr95_id"),
        "near-unknown images accepted": ("near", "fpr95_id"),
        "AUROC, all sets": ("all", "auroc"),
        "accuracy on known images": ("all", "accuracy"),
    }
    return [(label, cells) for label, where in wanted.items() if (cells := _mean_cells(content, lines, *where))]


# Figures


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers between `low` and `high`."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _scores(scores: torch.Tensor, name: str) -> np.ndarray:
    values = scores.detach().double().cpu().numpy().ravel()
    if not np.isfinite(values).all():
        raise ValueError(f"The scores of {name!r} are not all finite.")
    return np.sort(values)


def _histogram(known: np.ndarray, unknown: np.ndarray, width: float, height: float) -> dict[str, Any]:
    """Step outlines of two sorted score samples on a common scale, and the threshold that accepts 95 % of the known."""
    threshold = known[(19 * len(known) + 19) // 20 - 1]
    ends = np.concatenate([np.quantile(s, (0.005, 0.995)) for s in (known, unknown)])
    low, high = min(ends.min(), threshold), max(ends.max(), threshold)
    pad = 0.04 * (high - low) or 1.0
    low, high = low - pad, high + pad
    shares = [np.histogram(s.clip(low, high), 48, (low, high))[0] / len(s) for s in (known, unknown)]
    top = max(s.max() for s in shares)

    def outline(share: np.ndarray) -> str:
        steps = "".join(f"V{height * (1 - s / top):.1f}h{width / len(share):.3f}" for s in share)
        return f"M0 {height}{steps}V{height}z"

    def x(value: float) -> float:
        return round(width * (value - low) / (high - low), 1)

    return {
        "known": outline(shares[0]), "unknown": outline(shares[1]), "threshold": x(threshold),
        "accepted": float((unknown <= threshold).mean()), "ticks": [(x(t), f"{t:g}".replace("-", "−")) for t in _ticks(low, high)],
    }  # fmt: skip


def _roc(known: np.ndarray, unknown: np.ndarray, side: float) -> str:
    """The ROC curve: false alarms rightwards, unknown images found upwards."""
    fpr, tpr = roc(torch.from_numpy(known), torch.from_numpy(unknown), points=120)
    return "M" + "L".join(f"{side * f:.1f} {side * (1 - t):.1f}" for f, t in zip(fpr.tolist(), tpr.tolist(), strict=True))


def score_figures(content: Report, width: float = 300, height: float = 64, side: float = 100) -> dict[str, Any]:
    """For every OOD set with scores, controls aside: one histogram and one ROC curve per classifier, as SVG paths."""
    aside = {"id", *(row.dataset for row in content.rows if row.group == "control")}
    names = dict.fromkeys(name for by_set in content.scores.values() for name in by_set if name not in aside)
    figures = {}
    for name in names:
        panels = []
        for classifier in content.classifiers:
            by_set = content.scores.get(classifier, {})
            known, unknown = (_scores(by_set.get(s, torch.empty(0)), s) for s in ("id", name))
            if len(known) and len(unknown):
                panel = _histogram(known, unknown, width, height)
                panels.append({"classifier": classifier, "roc": _roc(known, unknown, side), **panel})
        if panels:
            figures[name] = panels
    return {"width": width, "height": height, "side": side, "sets": figures}


def drawn_map(content: Report, width: float = 720, height: float = 520) -> dict[str, Any] | None:
    """The latent map as SVG paths by class: dots for features, crosses for outliers, rings for dropped ones."""
    if content.latent_map is None or not len(content.latent_map.features_N2):
        return None
    m = content.latent_map
    every = math.ceil(len(m.features_N2) / MAP_POINTS)
    both = np.concatenate([m.features_N2, m.outliers_M2.reshape(-1, 2)])
    low, high = np.quantile(both, 0.001, axis=0), np.quantile(both, 0.999, axis=0)
    scale = 0.9 * np.min(np.array([width, height]) / np.maximum(high - low, 1e-9))
    centre = (low + high) / 2

    def place(points: np.ndarray) -> np.ndarray:
        return (points - centre) * scale * (1, -1) + (width / 2, height / 2)

    def marks(points: np.ndarray, shape: str) -> str:
        return "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in place(points).tolist())

    drawn = []
    for k, name in enumerate(content.classes):
        of_class = m.features_N2[m.y_N == k]
        outliers, dropped = m.outliers_M2[m.y_M == k], m.dropped_M[m.y_M == k]
        if len(of_class) or len(outliers):
            drawn.append({
                "name": name, "index": k, "features": marks(m.features_N2[::every][m.y_N[::every] == k], "h0"),
                "kept": marks(outliers[~dropped], "m-2-2l4 4m0-4l-4 4"),
                "dropped": marks(outliers[dropped], "m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0"),
                "label": place(np.median(of_class, axis=0)).round(1).tolist() if len(of_class) else None,
            })  # fmt: skip
    return {"width": width, "height": height, "every": every, "classes": drawn, "method": m.method}


# Filters of the template


def png(image_3HW: torch.Tensor) -> str:
    """A data URI of the image, shrunk to at most 128 pixels a side."""
    if image_3HW.dtype != torch.uint8 or image_3HW.ndim != 3 or image_3HW.shape[0] != 3:
        raise ValueError(f"An image must be uint8 (3, H, W), not {image_3HW.dtype} {tuple(image_3HW.shape)}.")
    picture = Image.fromarray(image_3HW.permute(1, 2, 0).cpu().contiguous().numpy())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def duration(seconds: float) -> str:
    """Seconds as "3.2 s", "4 min 05 s" or "2 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float) -> str:
    """A share in [0, 1] as "12.3 %"."""
    return f"{100 * share:.1f}\u00a0%"


def signed(value: float) -> str:
    """A score with two decimals and a real minus sign."""
    return f"{value:.2f}".replace("-", "−")


def number(value: int) -> str:
    """A count with a thin space at every thousand."""
    return f"{value:,}".replace(",", "\u202f")


def hue(index: int, count: int) -> str:
    """The hue of class `index` of `count`, as degrees; neighbours in the list lie apart on the wheel."""
    return f"{360 * (index * 0.618034 % 1 if count > 12 else index / max(count, 1)):.0f}"
