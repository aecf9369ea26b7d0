"""The page's numbers: headlines, means and spreads, best values, orders, accuracies under shift."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from oodream.core.results import Row
from oodream.report.content import Report
from oodream.report.page import report
from oodream.report.tables import shift_tables, summarize_shifts
from oodream.runtime.tails import wilson
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
    seeds = [replace(near(r), seed=s, auroc=near(r).auroc + 0.3 * s) for r in rows() for s in (0, 1)]
    said = Page(report(replace(full, rows=seeds))).text("p")
    assert re.search(rf"{warning[:-7]}.*against.*The ranges overlap", said)


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
    folders, corrupted = shift_tables(replace(full, shifts=shifts))
    cells = corrupted.cells
    assert list(cells) == ["blur", "jpeg", "mean"]
    assert list(cells["blur"]) == ["mean", "severity 1", "severity 5"]
    assert cells["mean"]["mean"][names[0]].value == pytest.approx(51.0)
    assert cells["blur"]["severity 1"][names[0]].spread == "± 1.4"
    assert cells["mean"]["mean"][names[-1]].value == pytest.approx(51.0 + 10 * (len(names) - 1))
    assert list(folders.cells) == ["night"]
    assert list(folders.cells["night"]) == ["accuracy", "flagged"]
    assert folders.cells["night"]["flagged"][names[0]].value == pytest.approx(1.0)
    assert folders.n == {"night": 9}
    page = report(replace(full, shifts=shifts))
    assert "Under shift" in page
    assert f"in the mean over corruptions, {names[0]} flags 25.0&nbsp;%" in page, "a folder is not among them"
    assert "Under shift" not in report(full)


def test_a_folders_shares_have_the_classifiers_own_intervals(full: Report) -> None:
    names = list(full.classifiers)
    shifts = [a for i, name in enumerate(names) for a in shift_rows(name, 0, 0.3 * i)]
    shifts = [replace(a, interval=(a.accuracy - 0.1, a.accuracy + 0.1)) for a in shifts]
    cells = shift_tables(replace(full, shifts=shifts))[0].cells["night"]
    assert [cells["accuracy"][name].spread for name in names] == ["40.0–60.0", "70.0–90.0"]
    low, high = (100 * bound for bound in wilson(3, 9))
    assert cells["flagged"]["regularized"].spread == f"{low:.1f}–{high:.1f}"


def test_all_corruptions_weigh_as_much_as_a_folder(full: Report) -> None:
    """The one number of a comparison; without folders it is the mean over corruptions."""
    rows_ = shift_rows("baseline", 0, 0.3)
    assert summarize_shifts(rows_[:-1], "baseline", "flagged").value == pytest.approx(25.0)
    assert summarize_shifts(rows_, "baseline", "flagged").value == pytest.approx((25.0 + 30.0) / 2)


def test_what_is_flagged_under_shift_is_said_to_be_so_by_the_energy(full: Report) -> None:
    shifts = [a for name in full.classifiers for a in shift_rows(name, 0, 0.1)]
    page = Page(report(replace(full, shifts=shifts, detector="msp"))).text("p")
    assert "Flagged here is by the energy, whatever the score of the headline (msp): it lies above" in page
    assert "The severity of a corruption goes from 1 to 5" in page
    page = Page(report(replace(full, shifts=[a for a in shifts if not a.severity]))).text("p")
    assert "Flagged here is by the energy: it lies above" in page
    assert "severity" not in page
    assert "corrupt" not in page


def test_answers_say_by_which_detector_they_are_where_it_is_not_the_headlines(full: Report) -> None:
    other = "whatever the score of the headline"
    assert other not in Page(report(replace(full, answering=full.detector))).text("p")
    page = Page(report(replace(full, answering="knn")))
    assert f"score by  , {other} ({full.detector})" in page.text("p")
    assert "knn" in page.text("code")


def test_the_page_shows_answers_in_shifted_folders(full: Report) -> None:
    shifts = [a for name in full.classifiers for a in shift_rows(name, 0, 0.1)]
    shown = replace(full, shifts=shifts, shift_answers={"night": full.answers[:1]})
    page = Page(report(shown))
    assert "What it answers in night" in page.text("h3")
    assert len(page.all("figure")) == len(Page(report(replace(shown, shift_answers={}))).all("figure")) + 1


def test_a_run_of_inliers_is_about_accuracy_under_shift(full: Report) -> None:
    shifts = [a for i, name in enumerate(full.classifiers) for a in shift_rows(name, 0, 0.1 * i)]
    of_clean = "; of clean ones 90.3 % vs 90.5 %."

    def said(*names: str) -> str:
        wanted = [a for a in shifts if a.dataset in names]
        if "dusk" in names:
            wanted += [replace(a, dataset="dusk", accuracy=0.2) for a in wanted if not a.severity]
        return Page(report(replace(full, kind="inlier", shifts=wanted))).text("h1")

    corrupted = "corrupted images"
    assert said("blur", "jpeg") == (
        f"Classifies 60.0 % of {corrupted} correctly, where baseline does 50.0 %{of_clean}"
    )
    assert said("night") == (
        f"Classifies 60.0 % of the images in night correctly, where baseline does 50.0 %{of_clean}"
    )
    assert said("night", "dusk", "blur", "jpeg") == (
        "Classifies 40.0 % of the images in 2 folders (mean) correctly, where baseline does 35.0 %; "
        f"of {corrupted} 60.0 % vs 50.0 %{of_clean}"
    )
    page = report(replace(full, kind="inlier", shifts=shifts))
    assert "Imagined inliers" in page
    assert "Imagined outliers" not in page
