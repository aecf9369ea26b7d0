"""The page: inert, self-contained, accessible, and small whatever is put into it."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.report.content import AuditNote, FilterCount, Imagined, LatentMap, Report, Strip
from oodream.report.page import MAX_FILTER_ROWS, filter_rows, report
from oodream.report.template import thumbnail
from tests.helpers.page import CLASSES, HOSTILE, Page

URL_ATTRIBUTES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}


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
        page = Page(report(replace(full, reconstructed_id={"regularized": auroc})))
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
        (lambda r: replace(r, scores={"baseline": {"id": torch.zeros(5)}}), "scores"),
        (lambda r: replace(r, scores={"baseline": {"id": torch.zeros(5), "bag": torch.zeros(0)}}), "scores"),
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


def test_refuses_what_it_cannot_show(full: Report) -> None:
    with pytest.raises(ValueError, match="at least one classifier"):
        report(replace(full, classifiers={}))
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="'bag'"):
        report(replace(full, scores={"baseline": {"id": torch.ones(5), "bag": torch.tensor([float("nan")])}}))


def test_latents_say_that_no_picture_was_seen(full: Report) -> None:
    assert "decoded for this page alone" in report(replace(full, latents=True))
    assert "decoded for this page alone" not in report(full)


def test_what_makes_the_numbers_doubtful_stands_in_the_head(full: Report) -> None:
    html = report(replace(full, remarks=["A problem, says the audit: it."]))
    assert html.count("A problem, says the audit: it.") == 1
    assert html.index("A problem") < html.index("</header>")


def test_the_audit_is_shown() -> None:
    a, b = (torch.full((3, 32, 32), v, dtype=torch.uint8) for v in (10, 200))
    content = Report(
        title="t", preset="p", created="c", command="c", classes=("a",), classifiers={"baseline": "x"}
    )
    assert 'id="audit"' not in report(content)
    notes = [
        AuditNote(
            kind="duplicates",
            sets=("train", HOSTILE),
            severity="problem",
            message=HOSTILE,
            pairs=[(a, b, HOSTILE)],
        ),
        AuditNote(
            kind="pixels",
            sets=("test", "odd"),
            severity="warning",
            message="m",
            aurocs={"together": 0.991, "colour": 0.5},
        ),
        AuditNote(kind="names", sets=("odd",), severity="fine", message="no class is named"),
    ]
    html = report(replace(content, audit=notes))
    section = html[html.index('<section id="audit">') : html.index('<section id="made">')]
    assert "1 problem, 1 warning, 1 fine." in section
    assert section.count("<img") == 2
    assert 'href="#audit"' in html
    assert HOSTILE not in html
    assert "99.1\u00a0%" in section
    assert "width:98.2%" in section
    assert section.index("no class is named") > section.index("<h3>Fine</h3>")


def test_names_that_are_no_text_are_escaped(full: Report) -> None:
    """Bytes that are no UTF-8 arrive as lone surrogates; U+2028 and U+0085 end no line of the page's data."""
    name = os.fsdecode(b"caf\xe9\xe2\x80\xa8\xc2\x85.png")
    gallery = [replace(item, anchor_file=name, prompt=name) for item in full.gallery]
    html = report(replace(full, title=name, gallery=gallery, config={"ood": [name]}))
    assert html.encode().decode() == html
    assert html.count("caf\\udce9") >= 3
    page = Page(html)
    assert not page.mismatched
    assert not page.open


def test_pictures_are_exact_up_to_64_pixels_and_small_above() -> None:
    g = torch.Generator().manual_seed(0)
    for size, shown, kind in ((64, 64, "PNG"), (65, 65, "WEBP"), (300, 128, "WEBP")):
        image = torch.randint(0, 256, (3, size, size), generator=g, dtype=torch.uint8)
        prefix, _, data = thumbnail(image).partition(";base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (prefix, picture.format, picture.size) == (f"data:image/{kind.lower()}", kind, (shown, shown))
        exact = np.array_equal(np.asarray(picture), image.permute(1, 2, 0).numpy())
        assert exact == (size == 64)


@pytest.fixture(scope="module")
def thousand() -> Report:
    """A thousand classes of 20 sampled vectors each, of which pictures of 40 are shown."""
    g = np.random.default_rng(0)
    names = tuple(f"class {k:03}" for k in range(1000))
    image = torch.from_numpy(g.integers(0, 256, (3, 32, 32), dtype=np.uint8))
    y_N, y_M = np.arange(50_000) % 1000, np.arange(20_000) % 1000
    item = Imagined(
        name="", image_3HW=image, anchor_3HW=image, row=0, seed=0, knn=0.5, cosine=0.5, prompt="a prompt",
        pipeline="0" * 32, anchor_file="/data/class/000.png", words=("a", "b"),
    )  # fmt: skip
    return Report(
        title="t", preset="p", created="c", command="c", classes=names, classifiers={"baseline": "x"},
        latent_map=LatentMap(
            features_N2=g.normal(size=(50_000, 2)), y_N=y_N, outliers_M2=g.normal(size=(20_000, 2)), y_M=y_M,
            dropped_M=np.zeros(20_000, dtype=bool), method="linear discriminants",
        ),
        gallery=[replace(item, name=name, row=i) for i, name in enumerate(names[:40]) for _ in range(6)],
        class_samples={name: image.expand(8, -1, -1, -1) for name in names[:40]},
        filtered={name: FilterCount(imagined=20, kept=k % 21) for k, name in enumerate(names)},
    )  # fmt: skip


def test_a_page_of_a_thousand_classes_says_what_it_shows_and_is_small(thousand: Report) -> None:
    html = report(thousand)
    page = Page(html)
    assert "40 of 1\u202f000 classes are shown." in page.text("p")
    assert "The 40 of 1\u202f000 classes of which the smallest shares were kept:" in page.text("p")
    assert len([a for a in page.all("details") if a.get("class") == "class"]) == 40
    without_pictures = re.sub(r"data:image/[^\"]*", "", html)
    assert len(without_pictures) < 1_000_000


def test_the_classes_that_lost_most_are_listed(thousand: Report) -> None:
    rows = filter_rows(thousand)
    assert len(rows) == MAX_FILTER_ROWS
    assert {count.kept for count in rows.values()} == {0}
    few = {name: FilterCount(imagined=20, kept=k % 21) for k, name in enumerate(thousand.classes[:40])}
    assert list(filter_rows(replace(thousand, filtered=few))) == list(thousand.classes[:40])


def test_a_page_that_shows_all_classes_says_nothing_of_it(full: Report) -> None:
    assert "classes are shown" not in report(full)


def test_what_was_dropped_is_said_with_its_reasons(full: Report) -> None:
    """For inliers and outliers alike: how many the baseline recognises, and who went for which reason."""
    dropped = {"it nearly repeats another image": 1, "it is blank": 2}
    for kind, harm in (("inlier", "would teach the wrong class"), ("outlier", "flag what it knows")):
        html = report(replace(full, kind=kind, dropped=dropped, recognized=7)).replace("\u00a0", " ")
        assert f"Are the {kind}s {kind}s?" in html
        assert re.search(
            rf"The baseline classifier takes 7 of all \([\d.]+ %\) for their class: .*{harm}", html
        )
        assert "2 dropped: it is blank" in html
    assert (
        "takes" not in report(replace(full, recognized=None)).split('id="controls"')[1].split("</section>")[0]
    )


def test_what_strips_show_is_said_once(full: Report) -> None:
    """Not again in every class."""
    strip = Strip(
        caption="Known images, and what is made of them:",
        images_N3HW=torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        labels=["known", "decoded"],
    )
    classes = list(dict.fromkeys(item.name for item in full.gallery))
    assert len(classes) > 1
    html = report(replace(full, strips={name: [strip] for name in classes}))
    assert html.count(f">{strip.caption}</p>") == 1
    assert html.count("<figcaption>decoded</figcaption>") == len(classes)
