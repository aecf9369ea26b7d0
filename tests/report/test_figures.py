"""Figures show what metrics measure, and stay small."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from oodream.functional import metrics
from oodream.report.content import FilterCount, LatentMap, Report
from oodream.report.figures import MAP_POINTS, map_figure
from oodream.report.page import report
from tests.helpers.page import rows


def test_figure_shows_the_share_metrics_measures(full: Report) -> None:
    html = report(full).replace("\u00a0", " ")
    for by_set in full.scores.values():
        assert f"accepts {100 * metrics.fpr95_id(by_set['id'], by_set['bag']):.1f} %" in html


def test_odd_content_is_drawn(full: Report) -> None:
    assert full.latent_map is not None
    none = np.empty((0, 2)), np.empty(0, dtype=int), np.empty(0, dtype=bool)
    report(
        replace(
            full, latent_map=replace(full.latent_map, outliers_M2=none[0], y_M=none[1], dropped_M=none[2])
        )
    )
    report(replace(full, scores={"baseline": {"id": torch.ones(5), "bag": torch.ones(1)}}))
    report(replace(full, rows=[replace(r, aupr_in=float("nan")) for r in rows()]))
    report(replace(full, filtered={"coat": FilterCount(imagined=0, kept=0)}, seconds={"align": 0.0}))


def test_how_far_vectors_lie_is_shown_against_95_percent_of_the_features(full: Report) -> None:
    """The line is at 0.4795, the 38th of 40 features; 12 of 40 vectors lie before it."""
    html = report(full).replace("\u00a0", " ")
    assert "30.0 % of the outliers lie before it" in html
    assert full.latent_map is not None
    bare = replace(full.latent_map, vector_knn=torch.empty(0))
    assert "How far from their class" not in report(replace(full, latent_map=bare))


def test_the_label_of_a_class_at_an_edge_stays_on_the_map(full: Report) -> None:
    points = np.array([[0.0, 0], [10, 0], [5, 1]])
    drawn = replace(
        full,
        classes=("red apples and triangles", "green pears and circles", "star"),
        latent_map=LatentMap(
            features_N2=points,
            y_N=np.arange(3),
            outliers_M2=points[:0],
            y_M=np.arange(0),
            dropped_M=np.zeros(0, dtype=bool),
            method="",
        ),
    )
    figure = map_figure(drawn)
    assert figure is not None
    assert [shape["label"].anchor for shape in figure["classes"]] == ["start", "end", "middle"]
    html = report(drawn)
    assert re.search(r'<text style="text-anchor:end"[^>]*>green pears and circles</text>', html)


def test_names_of_classes_that_lie_close_do_not_lie_on_one_another(full: Report) -> None:
    """Twelve middles in one place, and one that is far and keeps its own."""
    names = (*(f"class number {k}" for k in range(12)), "far")
    points = np.array([[0.01 * k, 0.0] for k in range(12)] + [[5.0, 3.0]])
    none = np.zeros(0, dtype=bool)
    drawn = LatentMap(
        features_N2=points, y_N=np.arange(13), outliers_M2=points[:0], y_M=np.arange(0), dropped_M=none,
        method="",
    )  # fmt: skip
    figure = map_figure(content := replace(full, classes=names, latent_map=drawn))
    assert figure is not None
    labels = [shape["label"] for shape in figure["classes"]]
    assert [label.moved for label in labels] == [False, *[True] * 11, False]
    for i, a in enumerate(label.box for label in labels):
        assert a[0] >= 0
        assert a[2] <= figure["width"]
        for b in (label.box for label in labels[:i]):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert report(content).count('class="lead"') == 11


def crosses(content: Report) -> list[int]:
    figure = map_figure(content)
    assert figure is not None
    return [
        shape["kept"].count("m-2-2") + shape["dropped"].count("a2.5 2.5 0 1 0 5")
        for shape in figure["classes"]
    ]


def test_every_vector_is_drawn_unless_there_are_too_many(full: Report) -> None:
    """Of very many vectors each class keeps its share, though rows take turns by class."""
    classes, n = tuple("abcde"), 5 * MAP_POINTS
    y = np.arange(n) % 5
    points = np.random.default_rng(0).normal(size=(n, 2))
    none = np.zeros(n, dtype=bool)

    def content(m: int) -> Report:
        latent_map = LatentMap(
            features_N2=points[:50],
            y_N=y[:50],
            outliers_M2=points[:m],
            y_M=y[:m],
            dropped_M=none[:m],
            method="",
        )
        return replace(full, classes=classes, latent_map=latent_map)

    assert crosses(content(MAP_POINTS)) == [MAP_POINTS // 5] * 5
    assert crosses(content(n)) == [MAP_POINTS // 5] * 5
    assert "One outlier in 5 is drawn." in report(content(n))
    assert "is drawn" not in report(content(MAP_POINTS))


def places(path: str) -> list[tuple[float, float]]:
    """Where a path's marks begin."""
    return [(float(x), float(y)) for x, y in re.findall(r"M([-\d.]+) ([-\d.]+)", path)]


@pytest.mark.parametrize("far", [1, 39], ids=["one far", "all but one far"])
def test_the_map_is_of_the_features_however_far_vectors_lie(full: Report, far: int) -> None:
    """What lies beyond is drawn at the edge, whole, and counted."""
    points = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    vectors = np.concatenate([points[: 40 - far], np.full((far, 2), (-1e4, 1e3))])
    drawn = LatentMap(
        features_N2=points, y_N=np.zeros(400, dtype=int), outliers_M2=vectors, y_M=np.zeros(40, dtype=int),
        dropped_M=np.arange(40) % 2 == 0, method="",
    )  # fmt: skip
    figure = map_figure(content := replace(full, latent_map=drawn))
    assert figure is not None
    (shape,) = figure["classes"]
    of_features = np.array(places(shape["features"]))
    assert (np.ptp(of_features, axis=0) > 0.28 * figure["height"]).all()
    marks = np.array([*of_features, *places(shape["kept"]), *places(shape["dropped"])])
    assert (marks >= 3.5).all()
    assert (marks <= (figure["width"] - 3.5, figure["height"] - 3.5)).all()
    assert figure["beyond"] == far
    assert f"{far} of 40 outliers lie beyond the frame, and are drawn at its edge." in report(content)
    near = replace(drawn, outliers_M2=points[:40])
    assert "beyond the frame" not in report(replace(full, latent_map=near))
