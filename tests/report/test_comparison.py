"""Arms beside each other: differences, the oracle's share, and both as Markdown and as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from oodream.functional.uncertainty import gain_share, paired
from oodream.report.comparison import (
    comparison_page,
    headline,
    markdown,
    measured,
    share_figure,
)
from oodream.report.contrasts import Arm, contrasts
from oodream.report.tables import Cell, spread
from tests.helpers.page import HOSTILE, Page

BASE = {
    "near auroc": (70.0, 71.0, 72.0),
    "near fpr95_id": (84.0, 86.0, 85.0),
    "all fpr95_id": (60.0, 61.0, 59.0),
    "accuracy": (80.0, 81.0, 82.0),
    "shifted accuracy": (60.0, 62.0, 61.0),
}


def arm(
    name: str,
    auroc: float = 0.0,
    fpr: float = 0.0,
    shifted: float = 0.0,
    oracle: bool = False,
    seeds: int = 3,
    kind: str = "outlier",
    backbone: str = "resnet8",
    **more,
) -> Arm:
    """An arm that differs from the baseline by about so much."""
    moves = dict(zip(BASE, (auroc, fpr, fpr, 0.0, shifted), strict=True))
    jitter = np.array([0.1, -0.2, 0.3]) * bool(auroc or fpr or shifted) * (1 + auroc / 20)
    by_seed = {key: tuple((np.array(BASE[key]) + moves[key] + jitter).tolist()[:seeds]) for key in BASE}
    cells: dict[str, Cell] = {key: spread(values, None) for key, values in by_seed.items()}
    return Arm(
        arm=name, kind=kind, count=100, oracle=oracle,
        train={"optimisation": {"epochs": 5}, "backbone": backbone},
        cells=cells, by_seed=by_seed, synthesis=20.0, training=30.0, memory=700_000_000, **more,
    )  # fmt: skip


ARMS = [
    replace(arm("baseline"), count=0, synthesis=0.0),
    arm("imagined", 2, -3),
    arm("known, varied", -4, 5),
    arm("real", 8, -10, oracle=True),
    arm("real, another origin", 1, -1, oracle=True),
]


def rows(text: str) -> dict[str, list[list[str]]]:
    """The tables of a Markdown text, by the bold line above them."""
    tables: dict[str, list[list[str]]] = {}
    for block in text.split("\n\n"):
        if block.startswith("**"):
            name = block.strip("*")
        elif block.startswith("|"):
            cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
            tables[name if tables else ""] = [cells[0], *cells[2:]]
    return tables


def test_differences_and_shares_are_those_of_the_numbers_by_seed():
    by_metric = contrasts(ARMS)
    assert [*by_metric] == ["near auroc", "near fpr95_id", "all fpr95_id", "accuracy", "shifted accuracy"]
    imagined, known, real, other = by_metric["near auroc"]
    base, first, best = (ARMS[i].by_seed["near auroc"] for i in (0, 1, 3))
    assert imagined.to_baseline == paired(base, first)
    assert imagined.to_first is None
    assert known.to_first == paired(first, ARMS[2].by_seed["near auroc"])
    assert imagined.share == gain_share(base, first, best)
    assert imagined.share.value == pytest.approx(2 / 8, abs=0.02)
    assert known.share.value < 0
    assert real.share is None, "the first arm with real outliers is the oracle"
    assert other.share.value == pytest.approx(1 / 8, abs=0.02)


def test_a_lower_fpr_is_a_gain():
    shares = [c.share for c in contrasts(ARMS)["near fpr95_id"]]
    assert shares[0].value == pytest.approx(3 / 10, abs=0.02)
    assert shares[1].value == pytest.approx(-5 / 10, abs=0.02)
    assert {c.share for c in contrasts(ARMS)["all fpr95_id"]} == {None}


def test_names_are_text_in_markdown():
    """Whatever Markdown would take it for, in the headline, the tables and the notes."""
    name, said = "a | <b>*x*</b> `y` [z](w) \\", "a \\| \\<b>\\*x\\*\\</b> \\`y\\` \\[z](w) \\\\"
    oracle = arm(name, 8, -10, oracle=True)
    text = markdown([ARMS[0], arm(name, 2, -3), oracle])
    assert name not in text
    assert f"“{said}”" in text
    assert f"The oracle is {said}: real images" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_markdown_has_a_table_of_numbers_and_one_for_each_metric():
    tables = rows(text := markdown(ARMS))
    assert [*tables] == [
        "", "near AUROC", "near fpr95_id", "fpr95_id of all sets", "accuracy", "accuracy under shift",
    ]  # fmt: skip
    assert text.startswith("“imagined” attains ")
    assert (tables[""][0][1], tables[""][0][-3]) == ("outliers", "ms an outlier")
    assert [row[0] for row in tables[""][1:]] == [one.arm for one in ARMS]
    assert tables[""][1][-4:] == ["0.0", "–", "30", "0.70"]
    assert tables[""][2][-4:] == ["20.0", "200", "30", "0.70"]
    head, imagined, _, real, _ = tables["near AUROC"]
    assert head == ["arm", "minus baseline", "minus imagined", "share of the oracle's gain"]
    assert re.fullmatch(r"\+2\.1 \(\+1\.\d to \+2\.\d; p = [\d.e-]+\)", imagined[1])
    assert (imagined[2], real[3]) == ("–", "–")
    assert re.fullmatch(r"2\d % \(1\d to 3\d\)", imagined[3])
    assert len(tables["fpr95_id of all sets"][0]) == 3, "no share is taken of it"
    assert "The oracle is real: real images of other things" in text
    assert "not defined" not in text


def test_a_share_of_nothing_is_said_in_words():
    nothing = [*ARMS[:3], replace(arm("real", oracle=True), by_seed=ARMS[0].by_seed)]
    text = markdown(nothing)
    assert [row[3] for row in rows(text)["near AUROC"][1:]] == ["not defined", "not defined", "–"]
    assert (
        "In near AUROC the share is not defined: the oracle itself gains +0.0 (the same for every seed)"
        in text
    )
    page = comparison_page("x", nothing, {}, "oodream compare", {})
    assert "not defined" in page
    assert "<svg" not in page


def test_without_an_oracle_nothing_is_said_of_one():
    text = markdown(ARMS[:3])
    assert "oracle" not in text
    assert rows(text)["near AUROC"][0] == ["arm", "minus baseline", "minus imagined"]
    page = comparison_page("x", ARMS[:3], {}, "oodream compare", {})
    assert "oracle" not in Page(page).text("p") + Page(page).text("h2") + Page(page).text("th")
    assert re.search(
        r"“imagined” beside the baseline: \+2\.1 points of near AUROC \(\+1\.\d to \+2\.\d\)\.", page
    )


def test_a_comparison_of_inliers_is_about_accuracy_under_shift():
    arms = [
        replace(arm("baseline", kind="inlier"), count=0),
        arm("in", shifted=4, kind="inlier"),
        arm("by name", auroc=3, shifted=1, kind="inlier"),
    ]
    tables = rows(text := markdown(arms))
    assert [*tables] == [
        "", "accuracy under shift", "accuracy", "fpr95_id of all sets", "near fpr95_id", "near AUROC",
    ]  # fmt: skip
    assert (tables[""][0][1], tables[""][0][-3]) == ("inliers", "ms an inlier")
    said = r"“in” beside the baseline: \+4\.1 points of accuracy under shift \(\+3\.\d to \+4\.\d\)\."
    assert re.match(said, text)
    assert re.fullmatch(said, Page(comparison_page("x", arms, {}, "", {})).text("h1"))
    assert "A higher AUROC or accuracy is better" in text


def test_outliers_beside_inliers_are_called_both():
    head, _ = measured([arm("baseline"), arm("out", 2), arm("in", shifted=4, kind="inlier")])
    assert (head[1], head[-3]) == ("outliers or inliers", "ms an outlier or inlier")


@pytest.mark.parametrize("oracle", [False, True])
def test_what_may_be_chance_is_no_headline(oracle):
    far_apart = replace(arm("imagined", 1), by_seed={**arm("x").by_seed, "near auroc": (60.0, 90.0, 70.0)})
    arms = [arm("baseline"), far_apart, *([arm("real", 8, oracle=True)] if oracle else [])]
    text = headline(arms, contrasts(arms))
    if oracle:
        assert text.startswith("It is not shown that “imagined” gains anything: ")
        assert re.search(r": \d+ % \(-\d+ to \d+\) of the oracle’s gain in near AUROC\.$", text)
    else:
        assert text.startswith("No difference between “imagined” and the baseline is shown in near AUROC: ")
        assert re.search(r": \+2\.3 points \(-\S+ to \+\S+\)\.$", text)


def test_arms_that_train_otherwise_are_named():
    alike, other = ARMS[:3], [*ARMS[:3], arm("ascood", 1, backbone="resnet8-z")]
    page = Page(comparison_page("x", alike, {}, "", {})).text("p")
    assert "All arms on one data set, one budget and the same seeds." in page
    page = Page(comparison_page("x", other, {}, "", {})).text("p")
    assert "one budget" not in page
    assert "Not all are trained alike" in page
    note = "Trained by other options than the baseline, so that differences to it are of these, too:"
    assert f"{note} ascood (train.backbone)." in page
    assert f"{note} ascood (train.backbone)." in markdown(other)
    assert note not in markdown(alike)


def test_whose_scores_are_compared_is_said():
    def arms(*detectors: str) -> list[Arm]:
        return [replace(arm, detector=name) for arm, name in zip(ARMS, detectors, strict=False)]

    alike, seeds = arms("energy", "energy"), [replace(one, by_seed={}) for one in arms("energy", "energy")]
    for text in (markdown(alike), markdown(seeds), Page(comparison_page("x", alike, {}, "", {})).text("p")):
        assert "are of the detector energy, the first of evaluate.detectors" in text
    assert "of the detector energy (“baseline”, “imagined”); knn (“known, varied”)," in markdown(
        arms("energy", "energy", "knn")
    )


def test_by_what_is_flagged_under_shift_is_said_where_that_is_measured():
    def flagged(one: Arm) -> Arm:
        return replace(
            one,
            detector="energy_gen",
            cells={**one.cells, "shifted flagged (night)": spread((5.0, 6.0), None)},
        )

    said = "Under shift, flagged is by the energy."
    assert said in markdown([flagged(one) for one in ARMS])
    assert said not in markdown([replace(one, detector="energy_gen") for one in ARMS])


def test_one_seed_has_no_differences():
    text = markdown(
        [arm("baseline", seeds=1), arm("imagined", 2, seeds=1), arm("real", 8, oracle=True, seeds=1)]
    )
    assert [*rows(text)] == [""]
    assert "take two seeds or more" in text


def test_arms_of_other_seeds_are_not_compared():
    imagined, fewer, _ = contrasts([*ARMS[:2], arm("fewer", 1, seeds=2), ARMS[3]])["near auroc"]
    assert (fewer.to_baseline, fewer.to_first, fewer.share) == (None, None, None)
    assert imagined.share is not None


def test_bars_lead_from_the_baseline_to_the_share():
    part = contrasts(ARMS)["near auroc"]
    figure = share_figure(part)
    bars = {bar["arm"]: bar for bar in figure["bars"]}
    assert [*bars] == ["imagined", "known, varied", "real, another origin"]
    unit = figure["one"] - figure["zero"]
    imagined, known = bars["imagined"], bars["known, varied"]
    assert imagined["x"] == figure["zero"]
    assert imagined["length"] / unit == pytest.approx(part[0].share.value, abs=0.01)
    assert known["x"] + known["length"] == pytest.approx(figure["zero"], abs=0.2)
    assert (imagined["loss"], known["loss"]) == (False, True)
    ends = [(end - figure["zero"]) / unit for end in known["interval"]]
    assert ends == pytest.approx(part[1].share.interval, abs=0.01)
    assert 0 <= min(known["interval"]) < figure["one"] <= figure["width"]


def test_the_ends_of_a_wide_figure_are_not_written_over_each_other():
    """The oracle gains little beside the others, so that it stands close to the baseline."""
    arms = [*ARMS[:3], arm("real", 1, -1, oracle=True)]
    figure = share_figure(contrasts(arms)["near auroc"])
    assert figure["one"] - figure["zero"] < 60
    page = Page(comparison_page("x", arms, {}, "", {}))
    anchors = {a.get("text-anchor", "start") for a in page.all("text") if a.get("y") == "-8"}
    assert anchors == {"end", "start"}


def test_the_page_is_inert_and_leads_to_the_arms():
    arms = [*ARMS[:2], replace(ARMS[2], arm=HOSTILE), *ARMS[3:]]
    options = {"imagined": {}, HOSTILE: {"decode": {"source": HOSTILE}}}
    told = (f"compare {HOSTILE}", arms, {"imagined": "imagined/report/index.html"}, HOSTILE, options)
    html = comparison_page(*told)
    page = Page(html)
    assert not page.mismatched
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "link", "iframe"})
    assert HOSTILE in page.text("th")
    assert {a["href"] for a in page.all("a")} == {"imagined/report/index.html"}
    assert len(page.all("svg")) == 2
    assert "“imagined” attains" in page.text("h1")
    assert html == comparison_page(*told)
    assert page.texts["dt"] == ["imagined", HOSTILE]
    assert [json.loads(own) for own in page.texts["code"]] == list(options.values())


def test_problems_of_the_audits_stand_before_the_numbers():
    told = [ARMS[0], *(replace(arm, problems=("near: what is unknown is known.",)) for arm in ARMS[1:3])]
    text = "A problem, says the audit of “imagined”, “known, varied”: near: what is unknown is known."
    assert markdown(told).index(f"**{text}**") < markdown(told).index("| arm |")
    html = comparison_page("c", told, {}, "compare", {})
    assert html.index(text) < html.index("<table")
    assert "A problem" not in markdown(ARMS)


def test_a_wide_table_has_the_width_of_the_page_and_says_that_it_scrolls():
    wide = [replace(arm, cells={f"near {i}": Cell(value=1, low=1, high=1, spread="") for i in range(9)})
            for arm in ARMS]  # fmt: skip
    for arms, hinted in ((wide, True), (ARMS, False)):
        page = Page(comparison_page("c", arms, {}, "compare", {}))
        assert {"id": "results", "class": "wide"} in page.all("section")
        assert ("scroll the table sideways" in page.text("p")) == hinted


def test_what_runs_warn_of_is_said_once_with_the_arms_concerned():
    few = "Each classifier will be trained for 12 steps alone."
    told = [ARMS[0], *(replace(arm, warned=(few, few)) for arm in ARMS[1:3])]
    text = f"A warning of “imagined”, “known, varied”: {few}"
    assert markdown(told).count(text) == 1
    assert comparison_page("c", told, {}, "compare", {}).count(text) == 1
    assert "A warning" not in markdown(ARMS)


def test_one_seed_tells_what_each_has_and_two_that_they_are_few():
    one = [arm("baseline", seeds=1), arm("imagined", 2, seeds=1)]
    said = "One training each: near AUROC 72.1 % by “imagined”, 70.0 % by the baseline."
    assert headline(one, contrasts(one)).startswith(said)
    two = [arm("baseline", seeds=2), arm("imagined", 2, seeds=2)]
    assert "Two seeds tell little" in markdown(two)
    assert "Two seeds tell little" not in markdown(ARMS)


def test_arms_that_do_not_differ_are_named():
    same = [ARMS[0], *(replace(ARMS[1], arm=name) for name in ("one sampler", "another")), ARMS[2]]
    assert "what they differ in does nothing here: “one sampler”, “another”." in markdown(same)
    assert "same numbers" not in markdown(ARMS)


def test_what_was_measured_on_is_said():
    sets = {"near": {"others": 7_100}, "far": {"digits": 500, "noise": 500}}
    measured = replace(ARMS[0], known=840, sets=sets, unknown=[f"class {i}" for i in range(12)])
    text = markdown([measured, *ARMS[1:]])
    assert (
        "Measured on 840 known images and on unknown ones, near: others 7,100; far: digits 500, noise 500. "
        "Unknown classes (12): class 0, class 1, "
    ) in text
    assert "class 9, … and 2 more." in text
    assert "Measured on" not in markdown(ARMS)


def test_the_columns_and_ranges_are_explained():
    of_seeds, one = markdown(ARMS[:3]), markdown([arm("baseline", seeds=1), arm("imagined", 2, seeds=1)])
    assert "± is the standard deviation over the seeds." in of_seeds
    assert "near: unknown images that look like the known ones; fpr95_id: " in of_seeds
    assert "control:" not in of_seeds
    assert "±" not in one
