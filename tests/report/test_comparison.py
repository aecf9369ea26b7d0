"""Arms beside each other: differences, the oracle's share, and both as Markdown and as a page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from oodream.functional.uncertainty import gain_share, paired
from oodream.report.comparison import Arm, comparison_page, contrasts, markdown, share_figure
from oodream.report.tables import Cell, spread
from tests.helpers.page import HOSTILE, Page

BASE = {
    "near auroc": (70.0, 71.0, 72.0),
    "near fpr95_id": (84.0, 86.0, 85.0),
    "all fpr95_id": (60.0, 61.0, 59.0),
}


def arm(name: str, auroc: float = 0.0, fpr: float = 0.0, oracle: bool = False, seeds: int = 3, **more) -> Arm:
    """An arm that differs from the baseline by about so much."""
    moves = {"near auroc": auroc, "near fpr95_id": fpr, "all fpr95_id": fpr}
    jitter = np.array([0.1, -0.2, 0.3]) * bool(auroc or fpr) * (1 + auroc / 20)
    by_seed = {key: tuple((np.array(BASE[key]) + moves[key] + jitter).tolist()[:seeds]) for key in BASE}
    cells: dict[str, Cell] = {key: spread(values, None) for key, values in by_seed.items()}
    return Arm(
        arm=name, outliers=100, oracle=oracle, cells=cells, by_seed=by_seed, synthesis=20.0, training=30.0,
        memory=700_000_000, **more,
    )  # fmt: skip


ARMS = [
    replace(arm("baseline"), outliers=0, synthesis=0.0),
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
    assert [*by_metric] == ["near auroc", "near fpr95_id", "all fpr95_id"]
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


def test_markdown_has_a_table_of_numbers_and_one_for_each_metric():
    tables = rows(text := markdown(ARMS))
    assert [*tables] == ["", "near AUROC", "near fpr95_id", "fpr95_id of all sets"]
    assert [row[0] for row in tables[""][1:]] == [one.arm for one in ARMS]
    assert tables[""][1][-4:] == ["0.0", "–", "30", "0.70"]
    assert tables[""][2][-4:] == ["20.0", "200", "30", "0.70"]
    head, imagined, _, real, _ = tables["near AUROC"]
    assert head == ["arm", "less baseline", "less imagined", "share of the oracle's gain"]
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
    page = comparison_page("x", nothing, {}, "oodream compare")
    assert "not defined" in page
    assert "<svg" not in page


def test_without_an_oracle_nothing_is_said_of_one():
    text = markdown(ARMS[:3])
    assert "oracle" not in text
    assert rows(text)["near AUROC"][0] == ["arm", "less baseline", "less imagined"]
    page = comparison_page("x", ARMS[:3], {}, "oodream compare")
    assert "oracle" not in Page(page).text("p") + Page(page).text("h2") + Page(page).text("th")
    assert "“imagined” beside the baseline: +2.1 points of near AUROC." in page


def test_whose_scores_are_compared_is_said():
    def arms(*detectors: str) -> list[Arm]:
        return [replace(arm, detector=name) for arm, name in zip(ARMS, detectors, strict=False)]

    alike, seeds = arms("energy", "energy"), [replace(one, by_seed={}) for one in arms("energy", "energy")]
    for text in (markdown(alike), markdown(seeds), Page(comparison_page("x", alike, {}, "")).text("p")):
        assert "are of the detector energy, the first of evaluate.detectors" in text
    assert "of the detector energy (baseline, imagined); knn (known, varied)," in markdown(
        arms("energy", "energy", "knn")
    )


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


def test_the_page_is_inert_and_leads_to_the_arms():
    arms = [*ARMS[:2], replace(ARMS[2], arm=HOSTILE), *ARMS[3:]]
    html = comparison_page(f"compare {HOSTILE}", arms, {"imagined": "imagined/report/index.html"}, HOSTILE)
    page = Page(html)
    assert not page.mismatched
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "img", "link", "iframe"})
    assert HOSTILE in page.text("th")
    assert {a["href"] for a in page.all("a")} == {"imagined/report/index.html"}
    assert len(page.all("svg")) == 2
    assert "“imagined” attains" in page.text("h1")
    assert html == comparison_page(
        f"compare {HOSTILE}", arms, {"imagined": "imagined/report/index.html"}, HOSTILE
    )
