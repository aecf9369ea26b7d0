"""Compare: runs side by side, with intervals and ROC curves, and pictures on which two classifiers differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from ..core.types import Json
from ..report.comparison import differences, headline, measured, share_figures
from ..report.contrasts import METRICS, contrasts
from ..report.remarks import about, notes, problems
from ..run.artifacts import Run
from ..run.disagree import Disagreement, Side, disagreements
from .arms import FPR, UNREADABLE, Beside, Curve, Facts, beside, facts
from .pages import fragment, page
from .reports import comparison_of
from .studio import Studio

__all__ = ["router"]

AT_ONCE = 12  # runs that are compared
SHOWN = 48  # pictures that are listed at once
SIDE = 300.0  # of a figure of ROC curves
Kind = Literal["baseline", "regularized"]
Share = Annotated[float, Query(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two classifiers, each a run's kind and seed, asked by one detector at thresholds that accept the share
    `accepted` of known test images.
    """

    first: str
    second: str
    detector: str
    first_kind: Kind = "regularized"
    second_kind: Kind = "regularized"
    first_seed: int = 0
    second_seed: int = 0
    accepted: Share = 0.95

    def disagreements(self, studio: Studio) -> list[Disagreement]:
        """Where the two disagree. Raises ValueError for a classifier or detector that a run has not."""
        first = side(studio.run(self.first), self.first_kind, self.first_seed, self.detector)
        second = side(studio.run(self.second), self.second_kind, self.second_seed, self.detector)
        return disagreements(first, second, self.accepted)


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()

    @routes.get("/compare")
    def show(request: Request) -> Response:
        chosen = request.query_params.get("run", "")
        beside_it = set(request.query_params.getlist("with")) or set(siblings(studio, chosen))
        paged = [name for name in studio.runs if comparison_of(studio, name)]
        return page(request, studio, "compare.html.j2", beside_it=beside_it, most=AT_ONCE, paged=paged)

    @routes.get("/api/compare/results")
    def results(name: Annotated[list[str], Query(min_length=1, max_length=AT_ONCE)]) -> Json:
        def read(run: str) -> Callable[[], Facts]:
            return lambda: studio.cached(run, "facts", lambda: facts(studio.run(run)))

        for run in name:
            studio.folder(run)  # an unknown name is no run that is left out
        return {"html": results_html(beside({run: read(run) for run in name}))}

    @routes.get("/api/compare/classifiers")
    def classifiers(name: Annotated[list[str], Query(min_length=1, max_length=AT_ONCE)]) -> Json:
        return {"classifiers": [one for run in name for one in sides(studio, run)]}

    @routes.get("/api/compare/disagreements")
    def disagree(pair: Annotated[Pair, Depends()]) -> Json:
        return {"sets": [counted(one) for one in pair.disagreements(studio)]}

    @routes.get("/api/compare/disagreements/pictures")
    def pictures(
        pair: Annotated[Pair, Depends()],
        set: str,
        flagged_by: Literal["first", "second"],
        start: Annotated[int, Query(ge=0)] = 0,
    ) -> Json:
        found = next((one for one in pair.disagreements(studio) if one.name == set), None)
        if found is None:
            raise ValueError(f"The two were not both measured on a set {set!r} of the same pictures.")
        rows = found.only_first if flagged_by == "first" else found.only_second
        images = studio.sets.read(studio.run(pair.first), set)
        part = rows[start : start + SHOWN]
        truth = [int(images.labels[one.row]) for one in part]
        return {
            "total": len(rows),
            "start": start,
            "shown": SHOWN,
            "pictures": [
                {**one._asdict(), "truth": images.classes[label] if label >= 0 else set}
                for one, label in zip(part, truth, strict=True)
            ],
        }

    @routes.get("/api/compare/{run}/picture")
    def picture(run: str, set: str, row: int) -> Response:
        content = studio.sets.picture(studio.run(run), set, row)
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})

    return routes


# What is asked of the library


def siblings(studio: Studio, chosen: str) -> list[str]:
    """The runs of the comparison that the chosen run, or the first one, belongs to: those beside it, where
    `oodream compare` has left its table there.
    """
    names = studio.runs[:1] if chosen not in studio.runs else [chosen]
    for name in names:
        home = studio.folder(name).parent
        if (home / "comparison.json").is_file():
            return [other for other in studio.runs if studio.folder(other).parent == home][:AT_ONCE]
    return names


def sides(studio: Studio, name: str) -> list[Json]:
    """The classifiers of a run, with the detectors that have scores of theirs; none of a run that cannot be
    read, which the tables leave out, too, and say why. Raises UnknownRun where there is none of this name.
    """
    studio.folder(name)
    try:
        run = studio.run(name)
        return [
            {"run": name, "kind": kind, "seed": seed, "detectors": detectors_of(run, kind, seed)}
            for kind, seed in run.classifiers
        ]
    except UNREADABLE:
        return []


def side(run: Run, kind: str, seed: int, detector: str) -> Side:
    """A classifier with a detector; ValueError where the run has not both."""
    if (kind, seed) not in run.classifiers or detector not in detectors_of(run, kind, seed):
        raise ValueError(f"{run.folder.path.name} has no scores of {detector!r} by {kind} of seed {seed}.")
    return Side(run=run, kind=kind, seed=seed, detector=detector)


def detectors_of(run: Run, kind: str, seed: int) -> list[str]:
    """The configured detectors that a run has scores of."""
    named = run.config.evaluate.detectors
    return [name for name in named if run.layout.scores(kind, seed, name).is_file()]


def counted(one: Disagreement) -> Json:
    """A set's disagreements as numbers."""
    return {
        "name": one.name,
        "group": one.group,
        "n": one.n,
        "only_first": len(one.only_first),
        "only_second": len(one.only_second),
        "both": one.both,
        "neither": one.neither,
    }


def results_html(table: Beside) -> str:
    """Tables and figures of runs beside each other."""
    by_metric = contrasts(table.arms) if table.same and len(table.arms) > 1 else {}
    return fragment(
        "results.html.j2",
        table=table,
        headline=headline(table.arms, by_metric) if len(table.arms) > 1 else "",
        problems=problems(table.arms),
        measured=measured(table.arms) if table.arms else None,
        shares_of=share_figures(by_metric),
        differences={METRICS[metric]: differences(table.arms, part) for metric, part in by_metric.items()},
        notes=[*about(table.arms), *notes(table.arms, by_metric)]
        if len(table.arms) > 1 and table.same
        else [],
        curves={group: drawn(part, table) for group, part in table.curves.items()},
        fpr=FPR,
        side=SIDE,
    )


def drawn(part: Sequence[Curve], table: Beside) -> list[Json]:
    """Curves as SVG paths, each with the number of its arm, and with what stands in for it in words."""
    numbers = {arm.arm: i for i, arm in enumerate(table.arms)}
    return [
        {
            "arm": curve.arm,
            "number": numbers[curve.arm],
            "auroc": curve.auroc,
            "path": f"M0 {SIDE:g}"
            + "".join(
                f"L{SIDE * f:.1f} {SIDE * (1 - t):.1f}" for f, t in zip(curve.fpr, curve.tpr, strict=True)
            ),
            "flagged": [curve.at(fpr) for fpr in FPR],
        }
        for curve in part
    ]
