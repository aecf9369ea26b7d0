"""Measured rows, and a page as a browser would see it."""

from __future__ import annotations

from html.parser import HTMLParser

from oodream.core.results import Row, ShiftRow

CLASSES = ("coat", "<script>alert(1)</script>", 'x" onerror="alert(2)')
HOSTILE = "<img src=x onerror=alert(3)>{{ 7 * 7 }}"
VOID = {"meta", "link", "img", "br", "input", "path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Tags with attributes, the text inside tags, and tags that do not match."""

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
        classifier=classifier,
        detector=detector,
        dataset=dataset,
        group=group,
        seed=seed,
        auroc=1 - fpr / 2,
        aupr_out=0.8,
        aupr_in=0.9,
        fpr95_id=fpr,
        fpr95_ood=fpr / 3,
        autc=0.4,
        oscr=0.8,
        calibration_error=0.05,
        misclassification_auroc=0.9,
        accuracy=0.905 if classifier == "baseline" else 0.903,
        n_id=40,
        n_ood=30,
        intervals={"fpr95_id": (fpr - interval, fpr + interval)},
    )


def rows(baseline: float = 0.306, regularized: float = 0.071, **options: float) -> list[Row]:
    where = [("bag", "near"), ("mean", "near"), (HOSTILE, "far"), ("mean", "far"), ("mean", "all")]
    fprs = {"baseline": baseline, "regularized": regularized}
    return [row(c, d, g, f, **options) for c, f in fprs.items() for d, g in where] + [  # type: ignore[arg-type]
        row(c, d, g, 0.5, detector="msp") for c in fprs for d, g in where
    ]


def shift_rows(classifier: str, seed: int, gain: float) -> list[ShiftRow]:
    corrupted = [
        ShiftRow(
            classifier=classifier,
            seed=seed,
            dataset=name,
            severity=s,
            accuracy=value / 100 + gain,
            flagged=value / 200,
            interval=(0.2, 0.9),
            n=50,
        )
        for name, value in (("blur", 60), ("jpeg", 40))
        for s in (1, 5)
    ]
    return [
        *corrupted,
        ShiftRow(
            classifier=classifier,
            seed=seed,
            dataset="night",
            severity=0,
            accuracy=0.5 + gain,
            flagged=gain,
            interval=(0.4, 0.6),
            n=9,
        ),
    ]
