"""The page's numbers: headlines, means and spreads, best values, orders, accuracies under shift."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oodream.core.results import Row
from oodream.report.content import Report
from oodream.report.page import report
from oodream.report.tables import shift_tables
from tests.helpers.page import HOSTILE, Page, row, rows, shift_rows


def test_headline_numbers_are_those_of_the_rows(full: Report) -> None:
    assert Page(report(full)).text("h1") == (
        "Accepts 7.1 % of unknown images instead of 30.6 % while still accepting 95 % of known ones; "
        "accuracy 90.3 % vs 90.5 %."
    )


def test_headline_does_not_flatter(full: Report) -> None:
    worse = Page(report(replace(full, rows=rows(baseline=0.2, regularized=0.4))))
    assert worse.text("h1").startswith("Accepts 40.0 % of unknown images where baseline accepts 20.0 %")
    assert "may be chance" not in worse.text("p")
    assert "may be chance" in Page(
        report(replace(full, rows=rows(baseline=0.2, regularized=0.19, interval=0.02)))
    ).text("p")


def test_headline_hides_no_harm_near_the_classes(full: Report) -> None:
    def near(r: Row) -> Row:
        return replace(r, auroc=0.6) if (r.classifier, r.group) == ("regularized", "near") else r

    warning = "Near-unknown images are told apart worse than by the baseline: AUROC 60.0 %"
    assert warning in Page(report(replace(full, rows=[near(r) for r in rows()]))).text("p")
    assert warning not in Page(report(full)).text("p")


def test_several_seeds_show_mean_and_spread(full: Report) -> None:
    several = rows(regularized=0.1, seed=0) + rows(regularized=0.2, seed=1) + rows(regularized=0.3, seed=2)
    page = Page(report(replace(full, rows=several)))
    assert page.text("h1").startswith("Accepts 20.0 %")
    assert "± 10.0" in page.text("span")
    assert "3 seeds" in page.text("p")


def test_best_value_is_bold_and_ties_share_it(full: Report) -> None:
    bold = Page(report(replace(full, rows=[r for r in rows() if r.detector == "energy"]))).text("b")
    assert "7.1" in bold
    assert "30.6" not in bold
    tied = Page(report(replace(full, rows=[r for r in rows(0.2, 0.2) if r.detector == "energy"]))).texts["b"]
    assert tied.count("20.0") >= 10


def test_sets_are_listed_near_then_far_then_all(full: Report) -> None:
    headers = Page(report(full)).texts["th"]
    positions = [
        headers.index(name) for name in ("bag", "Mean, near", HOSTILE, "Mean, far", "Mean over all sets")
    ]
    assert positions == sorted(positions)


def test_controls_are_in_no_figure_and_never_best(full: Report) -> None:
    alone = [r for r in rows() if r.detector == "energy"]
    scores = {c: {**by_set, "decoded": by_set["id"]} for c, by_set in full.scores.items()}
    with_control = replace(
        full,
        rows=[
            *alone,
            row("baseline", "decoded", "control", 0.9),
            row("regularized", "decoded", "control", 0.8),
        ],
        scores=scores,
    )
    page, before = Page(report(with_control)), Page(report(replace(full, rows=alone)))
    assert len(page.all("b")) == len(before.all("b"))
    assert len(page.all("figure")) == len(before.all("figure"))
    assert any(text.startswith("decoded, control") for text in page.texts["th"])


def test_without_ood_sets_it_says_so(full: Report) -> None:
    page = Page(report(replace(full, rows=[], sets=[], scores={})))
    assert page.text("h1").startswith("No unknown images were given")
    assert "nothing to measure" in page.text("p")


def test_one_classifier_is_compared_with_nothing(full: Report) -> None:
    alone = [r for r in rows() if r.classifier == "regularized" and r.detector == "energy"]
    page = Page(report(replace(full, classifiers={"regularized": ""}, rows=alone)))
    assert (
        page.text("h1")
        == "Accepts 7.1 % of unknown images while still accepting 95 % of known ones; accuracy 90.3 %."
    )
    assert not page.all("b")


def test_headline_is_about_the_chosen_detector(full: Report) -> None:
    assert (
        Page(report(replace(full, detector="msp"))).text("h1").startswith("Accepts 50.0 % of unknown images")
    )
    assert (
        Page(report(replace(full, detector="knn")))
        .text("h1")
        .startswith("No mean over all unknown images was measured with the knn")
    )


def test_accuracy_under_shift_by_severity_with_means(full: Report) -> None:
    names = list(full.classifiers)
    shifts = [
        a
        for i, name in enumerate(names)
        for seed in (0, 1)
        for a in shift_rows(name, seed, 0.1 * i + 0.02 * seed)
    ]
    corrupted, others = shift_tables(replace(full, shifts=shifts))
    cells = corrupted.cells
    assert list(cells) == ["blur", "jpeg", "mean"]
    assert list(cells["blur"]) == ["mean", "severity 1", "severity 5"]
    assert cells["mean"]["mean"][names[0]].value == pytest.approx(51.0)
    assert cells["blur"]["severity 1"][names[0]].spread == "± 1.4"
    assert cells["mean"]["mean"][names[-1]].value == pytest.approx(51.0 + 10 * (len(names) - 1))
    assert list(others.cells) == ["night"]
    assert others.n == {"night": 9}
    page = report(replace(full, shifts=shifts))
    assert "Under shift" in page
    assert f"{names[0]} flags 20.2&nbsp;%" in page.replace("\xa0", "&nbsp;"), "(2 * 30 + 2 * 20 + 0 or 2) / 5"
    assert "Under shift" not in report(full)


def test_a_run_of_inliers_is_about_accuracy(full: Report) -> None:
    shifts = [a for i, name in enumerate(full.classifiers) for a in shift_rows(name, 0, 0.1 * i)]
    page = report(replace(full, kind="inlier", shifts=shifts))
    last = 50 + 10 * (len(full.classifiers) - 1)
    assert (
        f"Classifies {last}.0\u00a0% of corrupted images correctly, where baseline does 50.0\u00a0%; "
        "of clean ones 90.3\u00a0% vs 90.5\u00a0%." in page
    )
    assert "Imagined inliers" in page
    assert "Imagined outliers" not in page
