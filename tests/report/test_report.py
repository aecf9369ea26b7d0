from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from oodream.core.results import Row, ShiftRow
from oodream.functional import metrics
from oodream.report.content import Answer, FilterCount, ImageSet, Imagined, LatentMap, Report
from oodream.report.page import png, report
from oodream.report.tables import shift_tables

CLASSES = ("coat", "<script>alert(1)</script>", 'x" onerror="alert(2)')
HOSTILE = "<img src=x onerror=alert(3)>{{ 7 * 7 }}"
VOID = {"meta", "img", "br", "input", "path", "line", "rect", "circle"}
URL_ATTRIBUTES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, the text inside tags, and tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str) -> str:
        return " ".join(self.texts.get(tag, [])).replace("\u00a0", " ")


def row(
    classifier: str,
    dataset: str,
    group: str,
    fpr: float,
    *,
    detector: str = "energy",
    seed: int = 0,
    interval: float = 0.01,
) -> Row:
    return Row(
        classifier=classifier, detector=detector, dataset=dataset, group=group, seed=seed, auroc=1 - fpr / 2, aupr_out=0.8,
        aupr_in=0.9, fpr95_id=fpr, fpr95_ood=fpr / 3, autc=0.4, oscr=0.8, calibration_error=0.05, misclassification_auroc=0.9,
        accuracy=0.905 if classifier == "plain" else 0.903, n_id=40, n_ood=30,
        intervals={"fpr95_id": (fpr - interval, fpr + interval)},
    )  # fmt: skip


def rows(plain: float = 0.306, dream: float = 0.071, **options: float) -> list[Row]:
    where = [("bag", "near"), ("mean", "near"), (HOSTILE, "far"), ("mean", "far"), ("mean", "all")]
    fprs = {"plain": plain, "dream": dream}
    return [row(c, d, g, f, **options) for c, f in fprs.items() for d, g in where] + [  # type: ignore[arg-type]
        row(c, d, g, 0.5, detector="msp") for c in fprs for d, g in where
    ]


@pytest.fixture(scope="module")
def full() -> Report:
    generator = torch.Generator().manual_seed(0)

    def image() -> torch.Tensor:
        return torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)

    def scores(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    y_N = np.arange(60) % 3
    points = np.random.default_rng(0).normal(size=(60, 2))
    return Report(
        title=f"Title {HOSTILE}", preset="demo", created="2025-01-01", command=f"oodream run {HOSTILE}", classes=CLASSES,
        classifiers={"plain": "cross-entropy", "dream": HOSTILE}, versions={"torch": "2.0"}, config={"name": HOSTILE, "k": [1, 2]},
        seconds={"align": 3.0, "train": 125.0}, rows=rows(),
        sets=[ImageSet(name="test", group="id", n=40), ImageSet(name="bag", group="near", n=30, description=HOSTILE)],
        scores={c: {"id": scores(400), "bag": scores(300) + shift} for c, shift in (("plain", 1), ("dream", 4))},
        latent_map=LatentMap(features_N2=points, y_N=y_N, outliers_M2=points[:9] * 2, y_M=y_N[:9], dropped_M=y_N[:9] == 1,
                             method="PCA"),
        gallery=[
            Imagined(name=name, image_3HW=image(), anchor_3HW=image(), row=i, seed=i, knn=0.4, cosine=0.7, prompt=f"a {name}",
                     pipeline="abc", anchor_file=HOSTILE, dropped=HOSTILE if i == 1 else "")
            for i, name in enumerate(CLASSES)
        ],
        class_samples={name: torch.stack([image(), image()]) for name in CLASSES},
        answers=[
            Answer(image_3HW=image(), truth="coat", known=True, verdict="coat", score=-5, threshold=-2),
            Answer(image_3HW=image(), truth="coat", known=True, verdict="unknown", score=-1, threshold=-2),
            Answer(image_3HW=image(), truth=HOSTILE, known=False, verdict="unknown", score=0, threshold=-2),
            Answer(image_3HW=image(), truth="bag", known=False, verdict="coat", score=-4, threshold=-2),
        ],
        reconstructed_id={"plain": 0.52, "dream": 0.69}, filtered={name: FilterCount(drawn=20, kept=15) for name in CLASSES},
    )  # fmt: skip


def test_headline_numbers_are_those_of_the_rows(full: Report) -> None:
    assert Page(report(full)).text("h1") == (
        "Accepts 7.1 % of unknown images instead of 30.6 % while still accepting 95 % of known ones; accuracy 90.3 % vs 90.5 %."
    )


def test_headline_does_not_flatter(full: Report) -> None:
    worse = Page(report(replace(full, rows=rows(plain=0.2, dream=0.4))))
    assert worse.text("h1").startswith("Accepts 40.0 % of unknown images where plain accepts 20.0 %")
    assert "may be chance" not in worse.text("p")
    assert "may be chance" in Page(
        report(replace(full, rows=rows(plain=0.2, dream=0.19, interval=0.02)))
    ).text("p")


def test_several_seeds_show_mean_and_spread(full: Report) -> None:
    several = rows(dream=0.1, seed=0) + rows(dream=0.2, seed=1) + rows(dream=0.3, seed=2)
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
        rows=[*alone, row("plain", "decoded", "control", 0.9), row("dream", "decoded", "control", 0.8)],
        scores=scores,
    )
    page, before = Page(report(with_control)), Page(report(replace(full, rows=alone)))
    assert len(page.all("b")) == len(before.all("b"))
    assert len(page.all("figure")) == len(before.all("figure"))
    assert any(text.startswith("decoded, control") for text in page.texts["th"])


def test_figure_shows_the_share_metrics_measures(full: Report) -> None:
    html = report(full).replace("\u00a0", " ")
    for by_set in full.scores.values():
        assert f"accepts {100 * metrics.fpr95_id(by_set['id'], by_set['bag']):.1f} %" in html


def test_hostile_text_is_inert(full: Report) -> None:
    page = Page(report(full))
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object", "embed", "link"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert HOSTILE in page.text("h3") + page.text("th"), "shown as it was written, and not evaluated"
    assert CLASSES[1] in page.text("summary")


def test_page_is_self_contained_and_well_formed(full: Report) -> None:
    html = report(full)
    page = Page(html)
    references = [
        v or "" for _, attributes in page.tags for k, v in attributes.items() if k in URL_ATTRIBUTES
    ]
    assert references
    assert all(r.startswith(("data:image/png;base64,", "#")) for r in references)
    assert not re.search(r"https?://|url\(|@import", html)
    assert {r[1:] for r in references if r.startswith("#")} <= {
        attributes.get("id") for _, attributes in page.tags
    }
    assert all(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert not page.mismatched
    assert not page.open


def test_page_speaks_to_screen_readers(full: Report) -> None:
    page = Page(report(full))
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("img")
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("role") == "img" or "aria-hidden" in a or "width" in a for a in page.all("svg"))
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_equal_content_gives_equal_bytes(full: Report) -> None:
    assert report(full) == report(full)


def test_warning_only_above_sixty_percent(full: Report) -> None:
    def notes(auroc: float) -> int:
        page = Page(report(replace(full, reconstructed_id={"dream": auroc})))
        return sum(a.get("class") == "note" for a in page.all("p"))

    assert (notes(0.6), notes(0.61)) == (0, 1)


def bare(content: Report) -> Report:
    return Report(
        title=content.title,
        preset="demo",
        created="now",
        command="oodream",
        classes=content.classes,
        classifiers=content.classifiers,
    )


@pytest.mark.parametrize(
    ("change", "section"),
    [
        (lambda r: replace(r, answers=()), "answers"),
        (lambda r: replace(r, gallery=(), class_samples={}), "outliers"),
        (lambda r: replace(r, scores={}), "scores"),
        (lambda r: replace(r, scores={"plain": {"id": torch.zeros(5)}}), "scores"),
        (lambda r: replace(r, scores={"plain": {"id": torch.zeros(5), "bag": torch.zeros(0)}}), "scores"),
        (lambda r: replace(r, latent_map=None), "map"),
        (lambda r: replace(r, reconstructed_id={}, filtered={}), "controls"),
        (bare, "answers"),
    ],
)
def test_missing_parts_leave_their_section_out(
    full: Report, change: Callable[[Report], Report], section: str
) -> None:
    html = report(change(full))
    assert f'id="{section}"' in report(full)
    assert f'id="{section}"' not in html
    assert f'href="#{section}"' not in html


def test_without_ood_sets_it_says_so(full: Report) -> None:
    page = Page(report(replace(full, rows=[], sets=[], scores={})))
    assert page.text("h1").startswith("No unknown images were given")
    assert "nothing to measure" in page.text("p")


def test_one_classifier_is_compared_with_nothing(full: Report) -> None:
    alone = [r for r in rows() if r.classifier == "dream" and r.detector == "energy"]
    page = Page(report(replace(full, classifiers={"dream": ""}, rows=alone)))
    assert (
        page.text("h1")
        == "Accepts 7.1 % of unknown images while still accepting 95 % of known ones; accuracy 90.3 %."
    )
    assert not page.all("b")


def test_odd_content_is_drawn(full: Report) -> None:
    assert full.latent_map is not None
    none = np.empty((0, 2)), np.empty(0, dtype=int), np.empty(0, dtype=bool)
    report(
        replace(
            full, latent_map=replace(full.latent_map, outliers_M2=none[0], y_M=none[1], dropped_M=none[2])
        )
    )
    report(replace(full, scores={"plain": {"id": torch.ones(5), "bag": torch.ones(1)}}))
    report(replace(full, rows=[replace(r, aupr_in=float("nan")) for r in rows()]))
    report(replace(full, filtered={"coat": FilterCount(drawn=0, kept=0)}, seconds={"align": 0.0}))


def test_headline_is_about_the_chosen_detector(full: Report) -> None:
    assert (
        Page(report(replace(full, detector="msp"))).text("h1").startswith("Accepts 50.0 % of unknown images")
    )
    assert (
        Page(report(replace(full, detector="knn")))
        .text("h1")
        .startswith("No mean over all unknown images was measured with the knn")
    )


def test_refuses_what_it_cannot_show(full: Report) -> None:
    with pytest.raises(ValueError, match="at least one classifier"):
        report(replace(full, classifiers={}))
    with pytest.raises(ValueError, match="uint8"):
        png(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="'bag'"):
        report(replace(full, scores={"plain": {"id": torch.ones(5), "bag": torch.tensor([float("nan")])}}))


def accuracies(classifier: str, seed: int, gain: float) -> list[ShiftRow]:
    found = [
        ShiftRow(
            classifier=classifier,
            seed=seed,
            dataset=name,
            severity=s,
            accuracy=value / 100 + gain,
            refused=value / 200,
            interval=(0.2, 0.9),
            n=50,
        )
        for name, value in (("blur", 60), ("jpeg", 40))
        for s in (1, 5)
    ]
    return [
        *found,
        ShiftRow(
            classifier=classifier, seed=seed, dataset="night", severity=0, accuracy=0.5 + gain, refused=gain,
            interval=(0.4, 0.6), n=9,
        ),
    ]  # fmt: skip


def test_accuracy_under_shift_by_severity_with_means(full: Report) -> None:
    names = list(full.classifiers)
    shifts = [
        a
        for i, name in enumerate(names)
        for seed in (0, 1)
        for a in accuracies(name, seed, 0.1 * i + 0.02 * seed)
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
    assert f"{names[0]} calls 20.2&nbsp;%" in page.replace("\xa0", "&nbsp;"), "(2 * 30 + 2 * 20 + 0 or 2) / 5"
    assert "Under shift" not in report(full)


def test_a_run_of_inliers_is_about_accuracy(full: Report) -> None:
    shifts = [a for i, name in enumerate(full.classifiers) for a in accuracies(name, 0, 0.1 * i)]
    page = report(replace(full, kind="inlier", shifts=shifts))
    last = 50 + 10 * (len(full.classifiers) - 1)
    assert (
        f"Names {last}.0\u00a0% of corrupted images rightly, where {next(iter(full.classifiers))} does 50.0\u00a0%"
        in page
    )
    assert "Imagined inliers" in page
    assert "Imagined outliers" not in page


def test_latents_say_that_no_picture_was_seen(full: Report) -> None:
    assert "decoded for this page alone" in report(replace(full, latents=True))
    assert "decoded for this page alone" not in report(full)
