"""Reports: the pages that runs and comparisons have written, sent as they are.

Whoever made a run's folder wrote them, so the browser is told to run nothing of them and to load nothing.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, RedirectResponse

from ..core.errors import StoreError
from ..run.layout import Layout
from .studio import Studio, UnknownRun

__all__ = ["POLICY", "comparison_of", "router"]

COMPARISON = "comparison.html"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def router(studio: Studio) -> APIRouter:
    """The pages. That of a comparison leads to its arms' reports by their folders."""
    routes = APIRouter()

    @routes.get("/reports/{run}")
    def report(run: str) -> Response:
        return _sent(studio.inside(run, Layout(studio.folder(run)).report))

    @routes.get("/comparisons/{run}/")
    def comparison(run: str) -> Response:
        if (file := comparison_of(studio, run)) is None:
            raise StoreError(f"{run} is no arm of a comparison that has a page.")
        return _sent(file)

    @routes.get("/comparisons/{run}/{arm}/report/index.html")
    def of_arm(run: str, arm: str) -> Response:
        place = studio.folder(run).parent / arm
        for name in studio.runs:
            if studio.folder(name) == place:
                return RedirectResponse(f"/reports/{quote(name, safe='')}")
        raise UnknownRun(f"The arm {arm!r} is no run of this studio.")

    return routes


def comparison_of(studio: Studio, name: str) -> Path | None:
    """The page of the comparison that a run is an arm of, which lies beside the run's folder; None where
    there is none, or a link to a file that lies elsewhere.
    """
    file = studio.folder(name).parent / COMPARISON
    return file if file.is_file() and file.resolve() == file else None


def _sent(file: Path) -> Response:
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": POLICY})
