"""The studio's pages: templates and what all of them are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from ..core.files import ASSETS
from ..report.template import render
from .studio import Studio

__all__ = ["PARTS", "TEMPLATES", "fragment", "page"]

TEMPLATES = ASSETS / "studio"
PARTS = {
    "outliers": "Outliers",
    "imagine": "Imagine",
    "try": "Try",
    "compare": "Compare",
    "run": "Run",
}
"""The parts' pages in the order of the menu: path and title."""
TAKE_GUARDS = ("", "try")  # paths of pages on which a guard can be chosen, too


def page(request: Request, studio: Studio, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template's page. `part` is the path of the part it belongs to, `runs` are the names to choose from,
    with those of guards where these are of use, and `run` is the chosen one of them (of the query, or the
    first), unless it is among the values. `imagined` is what its images are called, inliers or outliers.

    Names come from users, so the templates escape everything. Raises UnknownRun where the query names a run
    that there is not.
    """
    part = request.url.path.strip("/")
    runs = studio.names if part in TAKE_GUARDS else studio.runs
    run: str = values["run"] if "run" in values else _chosen(request, studio, runs)
    imagined = studio.imagined(run)
    common: dict[str, Any] = {
        "part": part,
        "parts": PARTS | {"outliers": imagined.capitalize()},
        "runs": runs,
        "guards": studio.guards,
        "run": run,
        "imagined": imagined,
    }
    return HTMLResponse(fragment(template, **common | values), status)


def _chosen(request: Request, studio: Studio, runs: Sequence[str]) -> str:
    if chosen := request.query_params.get("run", ""):
        studio.folder(chosen)  # raises UnknownRun
    return chosen if chosen in runs else next(iter(runs), "")


def fragment(template: str, **values: Any) -> str:
    """A template's text, which UTF-8 can hold. Those of the report are at hand."""
    return render(template, TEMPLATES, **values)
