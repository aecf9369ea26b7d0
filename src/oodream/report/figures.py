"""The page's figures as SVG paths: histograms of scores, ROC curves, the latent map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..functional.metrics import roc
from ..models.classifier import quantile_threshold
from .content import LatentMap, Report
from .labels import Label, place_labels

__all__ = [
    "HEIGHT",
    "MAP_POINTS",
    "WIDTH",
    "map_figure",
    "score_figures",
    "sorted_scores",
    "threshold_histogram",
]

MAP_POINTS = 4000  # features, and as many sampled vectors, that are drawn at most
WIDTH, HEIGHT = 300, 64  # of a histogram on a page
SIDE = 100  # of a ROC curve
MAP_WIDTH, MAP_HEIGHT = 720, 520
EDGE = 6  # between the map's edge and the middle of a mark, which is whole
BINS = 48
NAMED = 20  # classes whose names stand on the map, at most


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers between `low` and `high`."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def sorted_scores(scores: torch.Tensor, name: str) -> np.ndarray:
    """Scores in ascending order; ValueError, which names the set, where one is not finite."""
    values = scores.detach().double().cpu().numpy().ravel()
    if not np.isfinite(values).all():
        raise ValueError(f"The scores of {name!r} are not all finite.")
    return np.sort(values)


def threshold_histogram(
    known: np.ndarray, unknown: np.ndarray, threshold: float, width: float, height: float
) -> dict[str, Any]:
    """Outlines of two sorted score samples on a common scale from `low` to `high`, and the threshold with the
    share of the unknown that it accepts.
    """
    ends = np.concatenate([np.quantile(s, (0.005, 0.995)) for s in (known, unknown)])
    low, high = min(ends.min(), threshold), max(ends.max(), threshold)
    pad = 0.04 * (high - low) or 1.0
    low, high = low - pad, high + pad
    shares = [np.histogram(s.clip(low, high), BINS, (low, high))[0] / len(s) for s in (known, unknown)]
    top = max(s.max() for s in shares)

    def outline(share: np.ndarray) -> str:
        steps = "".join(f"V{height * (1 - s / top):.1f}h{width / len(share):.3f}" for s in share)
        return f"M0 {height}{steps}V{height}z"

    def x(value: float) -> float:
        return round(width * (value - low) / (high - low), 1)

    return {
        "low": low,
        "high": high,
        "known": outline(shares[0]),
        "unknown": outline(shares[1]),
        "threshold": x(threshold),
        "accepted": float((unknown <= threshold).mean()),
        "ticks": [(x(t), f"{t:g}".replace("-", "−")) for t in _ticks(low, high)],
    }


def _roc(known: np.ndarray, unknown: np.ndarray) -> str:
    """The ROC curve: known images flagged to the right, unknown images flagged upwards."""
    fpr, tpr = roc(torch.from_numpy(known), torch.from_numpy(unknown), points=120)
    points = zip(fpr.tolist(), tpr.tolist(), strict=True)
    return "M" + "L".join(f"{SIDE * f:.1f} {SIDE * (1 - t):.1f}" for f, t in points)


def score_figures(content: Report) -> dict[str, Any]:
    """For every OOD set with scores, controls aside, a ROC curve of each classifier, and a histogram with the
    threshold that accepts 95 % of the known images.

    Raises ValueError where a score is not finite.
    """
    aside = {"id", *(row.dataset for row in content.rows if row.group == "control")}
    names = dict.fromkeys(name for by_set in content.scores.values() for name in by_set if name not in aside)
    figures = {}
    for name in names:
        panels = []
        for classifier in content.classifiers:
            by_set = content.scores.get(classifier, {})
            known, unknown = (sorted_scores(by_set.get(s, torch.empty(0)), s) for s in ("id", name))
            if len(known) and len(unknown):
                threshold = quantile_threshold(torch.from_numpy(known))
                panel = threshold_histogram(known, unknown, threshold, WIDTH, HEIGHT)
                panels.append({"classifier": classifier, "roc": _roc(known, unknown), **panel})
        if panels:
            figures[name] = panels
    return {"width": WIDTH, "height": HEIGHT, "side": SIDE, "sets": figures}


def map_figure(content: Report) -> dict[str, Any] | None:
    """The latent map by class: dots for features, crosses for sampled vectors, rings for dropped ones.

    Of more than MAP_POINTS features every n-th is drawn, and so of the vectors of each class. What lies
    beyond the frame is drawn at its edge; `beyond` says of how many vectors that is true.
    """
    if content.latent_map is None or not len(content.latent_map.features_N2):
        return None
    m = content.latent_map
    every, vectors_every = (max(1, math.ceil(len(y) / MAP_POINTS)) for y in (m.y_N, m.y_M))
    scale, centre = _frame(m)
    middle = np.array([MAP_WIDTH, MAP_HEIGHT]) / 2

    def unbounded(points: np.ndarray) -> np.ndarray:
        return (points.reshape(-1, 2) - centre) * scale * (1, -1) + middle

    def place(points: np.ndarray) -> np.ndarray:
        return unbounded(points).clip(EDGE, 2 * middle - EDGE)

    def marks(points: np.ndarray, shape: str) -> str:
        return "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in place(points).tolist())

    labels = _labels(
        content.classes, {k: place(m.features_N2[m.y_N == k]) for k in np.unique(m.y_N).tolist()}
    )
    classes = []
    for k, name in enumerate(content.classes):
        vectors, dropped = (x[m.y_M == k][::vectors_every] for x in (m.outliers_M2, m.dropped_M))
        if (m.y_N == k).any() or len(vectors):
            classes.append(
                {
                    "name": name,
                    "index": k,
                    "features": marks(m.features_N2[::every][m.y_N[::every] == k], "h0"),
                    "kept": marks(vectors[~dropped], "m-2-2l4 4m0-4l-4 4"),
                    "dropped": marks(vectors[dropped], "m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0"),
                    "label": labels.get(k),
                }
            )
    return {
        "width": MAP_WIDTH,
        "height": MAP_HEIGHT,
        "every": every,
        "vectors_every": vectors_every,
        "vectors": len(m.y_M),
        "beyond": int((place(m.outliers_M2) != unbounded(m.outliers_M2)).any(1).sum()),
        "classes": classes,
        "method": m.method,
        "distances": _distances(m),
    }


def _frame(m: LatentMap) -> tuple[float, np.ndarray]:
    """The map's scale, in pixels, and the point (2,) in its middle. It shows the features and the central
    98 % of the vectors, as far as they leave a third of it to the features.
    """
    low, high = np.quantile(m.features_N2, (0.001, 0.999), axis=0)
    if len(m.y_M):
        first, last = np.quantile(m.outliers_M2, (0.01, 0.99), axis=0)
        reach = float((high - low).max()) or math.inf
        low, high = (
            np.clip(first, low - reach, low),
            np.clip(last, high, high + reach),
        )
    scale = 0.9 * np.min(np.array([MAP_WIDTH, MAP_HEIGHT]) / np.maximum(high - low, 1e-9))
    return float(scale), (low + high) / 2


def _labels(names: Sequence[str], places: Mapping[int, np.ndarray]) -> dict[int, Label]:
    """The names of classes, each where the middle of its features (n, 2) is; none where they are too many."""
    if len(places) > NAMED:
        return {}
    middles = [(float(x), float(y)) for x, y in (np.median(p, axis=0).round(1) for p in places.values())]
    labels = place_labels(middles, [names[k] for k in places], MAP_WIDTH, MAP_HEIGHT)
    return dict(zip(places, labels, strict=True))


def _distances(m: LatentMap) -> dict[str, Any] | None:
    """A histogram of how far features and vectors lie from their classes; None where there are none."""
    own, vectors = sorted_scores(m.own_knn, "features"), sorted_scores(m.vector_knn, "vectors")
    if not len(own) or not len(vectors):
        return None
    threshold = quantile_threshold(torch.from_numpy(own))
    return threshold_histogram(own, vectors, threshold, MAP_WIDTH, HEIGHT)
