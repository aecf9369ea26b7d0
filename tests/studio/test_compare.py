"""Compare: arms, curves and disagreements beside the library's, and nothing else that could be read."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from oodream.audit.finding import Audit, Finding
from oodream.core.files import read_json
from oodream.data.inputs import DataInputs
from oodream.report.comparison import measured
from oodream.report.contrasts import contrasts
from oodream.report.remarks import problems
from oodream.run.artifacts import Run
from oodream.run.compare import measured_arm
from oodream.run.disagree import Side, disagreements
from oodream.studio.arms import Beside, beside, facts
from oodream.studio.compare import results_html
from tests.helpers.page import Page
from tests.helpers.studio import client

PAIR = "first=fewer&second=calm&detector=energy&accepted=0.8"


@pytest.fixture(scope="module")
def asking(guarded, finished) -> TestClient:
    return client(guarded, finished)


@pytest.fixture(scope="module")
def runs(guarded, finished) -> dict[str, Run]:
    return {"fewer": Run.open(guarded), "calm": Run.open(finished)}


def read(runs: dict[str, Run]) -> Beside:
    return beside({name: partial(facts, run) for name, run in runs.items()})


def test_arms_are_those_of_the_library(runs):
    table = read(runs)
    assert [arm.arm for arm in table.arms] == ["baseline", "fewer", "calm"], (
        "one baseline: both have trained it"
    )
    assert table.arms[0] == measured_arm("baseline", runs["fewer"], "baseline")
    assert table.arms[2] == measured_arm("calm", runs["calm"], "regularized")
    assert table.same
    assert table.problems == {}


def test_what_makes_numbers_doubtful_is_said_as_in_the_comparison(finished, monkeypatch):
    run = Run.open(finished)
    rows = [replace(row, accuracy=1 / len(run.book.names)) for row in run.rows()]
    finding = Finding(
        kind="duplicates", sets=("ID/train", "near"), count=3, share=0.3, severity="problem", message="long"
    )
    monkeypatch.setattr(Run, "rows", lambda self: rows)
    monkeypatch.setattr(Run, "audit", lambda self: Audit(sets={}, findings=(finding,)))
    table = beside({"calm": partial(facts, run)})
    html = results_html(table)
    (said,) = problems(table.arms)
    assert said.startswith("A problem, says the audit of “calm”: 30.0")
    assert html.count(said) == 1
    assert html.index(said) < html.index("<table")
    assert html.count("A warning of “baseline”, “calm”: the accuracy is no better than guessing") == 1


def test_the_area_of_a_curve_is_the_auroc_of_its_arm(runs):
    table = read(runs)
    assert list(table.curves) == ["far"], "there is no near set"
    for curve, arm in zip(table.curves["far"], table.arms, strict=True):
        assert curve.arm == arm.arm
        assert 100 * curve.auroc == pytest.approx(arm.cells["far auroc"].value, abs=0.5)
        assert curve.at(1) == 1


def test_what_cannot_be_compared_is_said(runs, guarded, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.json").write_bytes((guarded / "run.json").read_bytes())
    table = read({**runs, "begun": Run.open(begun)})
    assert list(table.problems) == ["begun"]
    assert "not been measured yet" in table.problems["begun"]
    assert len(table.arms) == 3
    answer = client(guarded, begun).get("/api/compare/results?name=begun&name=fewer").json()
    assert "begun is left out" in answer["html"]


def test_runs_of_other_pictures_are_not_subtracted(runs, guarded, tmp_path):
    other = shutil.copytree(guarded, tmp_path / "other")
    stamp = read_json(other / "guard" / "stage.json")
    stamp["inputs"]["test"] = "other pictures"
    (other / "guard" / "stage.json").write_text(json.dumps(stamp))
    table = read({"fewer": runs["fewer"], "other": Run.open(other)})
    assert not table.same
    html = client(guarded, other).get("/api/compare/results?name=fewer&name=other").json()["html"]
    assert "not measured on the same pictures" in html
    assert "<h2>Differences" not in html
    refused = client(guarded, other).get(
        "/api/compare/disagreements?first=fewer&second=other&detector=energy"
    )
    assert refused.status_code == 422
    assert "different known images" in refused.json()["detail"]


def test_baselines_that_were_trained_otherwise_stand_last(runs):
    one = facts(runs["fewer"])
    table = beside({"fewer": lambda: one, "calm": lambda: replace(one, baselines=[{"other": 1}])})
    assert [arm.arm for arm in table.arms] == ["baseline", "fewer", "calm", "baseline of calm"]
    assert [curve.arm for curve in table.curves["far"]] == [arm.arm for arm in table.arms]


def test_accuracy_on_other_shifted_pictures_is_not_subtracted(runs):
    one = facts(runs["fewer"])
    assert one.arms["baseline"].by_seed["shifted accuracy"]
    other = replace(one, shifted={"shift": {"n_corrupted": 3}})
    alike = beside({"fewer": lambda: one, "calm": lambda: one})
    apart = beside({"fewer": lambda: one, "calm": lambda: other})
    assert alike.same
    assert apart.same
    assert {"shifted accuracy" in arm.by_seed for arm in alike.arms} == {True}
    assert {"shifted accuracy" in arm.by_seed for arm in apart.arms} == {False}
    assert all(arm.by_seed["all fpr95_id"] for arm in apart.arms)


def test_the_results_show_all_numbers(asking, runs):
    html = asking.get("/api/compare/results?name=fewer&name=calm").json()["html"]
    page = Page(html)
    arms = read(runs).arms
    text = page.text("td") + page.text("th")
    for row in measured(arms)[1]:
        for cell in row:
            assert cell.partition(" ")[0] in text
    assert not page.mismatched
    assert contrasts(arms) == {}, "one seed"
    assert "take two seeds or more" in html
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "style"})
    assert not [name for _, attributes in page.tags for name in attributes if name in ("style", "onerror")]
    curve = page.all("svg")[0]
    assert curve["role"] == "img"
    assert "baseline: area" in curve["aria-label"]


def test_one_run_is_one_arm(asking):
    html = asking.get("/api/compare/results?name=fewer").json()["html"]
    assert "One training each: " in html


def test_classifiers_are_listed_with_their_detectors(asking, runs):
    listed = asking.get("/api/compare/classifiers?name=calm").json()["classifiers"]
    assert [(one["run"], one["kind"], one["seed"]) for one in listed] == [
        ("calm", "baseline", 0),
        ("calm", "regularized", 0),
    ]
    assert listed[0]["detectors"] == list(runs["calm"].config.evaluate.detectors)


def test_a_run_that_cannot_be_read_hides_no_others_classifiers(guarded, finished, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    asking, names = client(guarded, finished, broken), "name=fewer&name=broken&name=calm"
    assert "broken is left out" in asking.get(f"/api/compare/results?{names}").json()["html"]
    listed = asking.get(f"/api/compare/classifiers?{names}").json()["classifiers"]
    assert [one["run"] for one in listed] == ["fewer", "fewer", "calm", "calm"]
    assert asking.get("/api/compare/classifiers?name=fewer&name=nothing").is_error, "no run of the studio"


def test_disagreements_and_their_pictures_are_the_librarys(asking, runs):
    first, second = (Side(run=run, kind="regularized", seed=0, detector="energy") for run in runs.values())
    expected = {one.name: one for one in disagreements(first, second, 0.8)}
    sets = asking.get(f"/api/compare/disagreements?{PAIR}").json()["sets"]
    assert [one["name"] for one in sets] == list(expected)
    inputs = DataInputs(runs["fewer"].config)
    images = {"id": inputs.test, **{one.name: one.images for one in inputs.ood}}
    seen = 0
    for one in sets:
        other = expected[one["name"]]
        assert (one["n"], one["both"], one["neither"]) == (other.n, other.both, other.neither)
        for by, rows in (("first", other.only_first), ("second", other.only_second)):
            assert one[f"only_{by}"] == len(rows)
            place = f"/api/compare/disagreements/pictures?{PAIR}&set={one['name']}&flagged_by={by}"
            found = asking.get(place).json()
            assert [p["row"] for p in found["pictures"]] == [row.row for row in rows]
            for picture in found["pictures"][:2]:
                content = asking.get(
                    f"/api/compare/fewer/picture?set={one['name']}&row={picture['row']}"
                ).content
                shown = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
                assert np.array_equal(shown, images[one["name"]].batch([picture["row"]])[0].numpy())
                seen += 1
    assert seen, "the two disagree on something"


@pytest.mark.parametrize(
    "query",
    [
        "first=fewer&second=nothing&detector=energy",
        "first=fewer&second=calm&detector=../../../run",
        "first=fewer&second=calm&detector=energy&first_kind=../x",
        "first=fewer&second=calm&detector=energy&second_seed=5",
        "first=fewer&second=calm&detector=energy&accepted=1.5",
        "first=fewer&second=calm&detector=energy&first_seed=-1",
    ],
)
def test_classifiers_that_are_not_there_are_refused(asking, query):
    answer = asking.get(f"/api/compare/disagreements?{query}")
    assert answer.status_code in (404, 422)
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "place",
    [
        "nothing/picture?set=id&row=0",
        "fewer/picture?set=../run.json&row=0",
        "fewer/picture?set=id&row=24",
        "fewer/picture?set=id&row=-1",
        "..%2F..%2Fetc/picture?set=id&row=0",
    ],
)
def test_there_are_no_other_pictures(asking, place):
    answer = asking.get(f"/api/compare/{place}")
    assert answer.status_code in (404, 422)
    assert answer.json()["detail"]


def test_names_are_text(guarded, tmp_path):
    name = "<b onmouseover=alert(1)>"
    html = (
        client(shutil.copytree(guarded, tmp_path / name))
        .get("/api/compare/results", params={"name": name})
        .json()["html"]
    )
    page = Page(html)
    assert name in page.text("th")
    assert page.all("b") == []


def test_the_runs_of_one_comparison_are_chosen_at_first(guarded, finished, tmp_path):
    folders = [shutil.copytree(run, tmp_path / run.name) for run in (guarded, finished)]
    (tmp_path / "comparison.json").write_text("[]")
    page = Page(client(*folders).get("/compare?run=calm").text)
    boxes = [one for one in page.all("input") if one.get("type") == "checkbox"]
    assert [(one["value"], "checked" in one) for one in boxes] == [("fewer", True)]
    (tmp_path / "comparison.json").unlink()
    page = Page(client(*folders).get("/compare?run=calm").text)
    assert not any("checked" in one for one in page.all("input"))


def test_in_the_browser(served, page, runs):
    first, second = (Side(run=run, kind="regularized", seed=0, detector="energy") for run in runs.values())
    page.goto(f"{served.url}/compare?run=fewer")
    page.locator("#results .tight").first.wait_for()
    assert "calm" not in page.locator("#results").inner_text()
    page.locator("#chosen").get_by_label("calm").check()
    page.locator("#results .legend", has_text="calm").wait_for()
    assert "with=calm" in page.url, "the choice survives a reload"
    page.locator("#sets[aria-busy=false]").wait_for()
    page.locator("#share").select_option("0.8")
    page.locator("#sets[aria-busy=false]").wait_for()
    expected = {one.name: one for one in disagreements(first, second, 0.8)}
    name, one = max(expected.items(), key=lambda item: len(item[1].only_first) + len(item[1].only_second))
    by = "first" if one.only_first else "second"
    n = len(one.only_first or one.only_second)
    page.get_by_label(f"Show {n} of {name} that only the {by} calls unknown").press("Enter")
    shown = page.locator(".differ li")
    shown.first.wait_for()
    assert shown.count() == min(n, 48)
    assert (
        page.locator(".differ img").first.evaluate("(image) => image.decode().then(() => image.naturalWidth)")
        == 32
    )
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "tables scroll, the page does not"
