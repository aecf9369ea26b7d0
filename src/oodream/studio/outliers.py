"""Outliers: a gallery of what a run has imagined, to keep or to reject."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from ..core.types import Json
from .gallery import Action, Gallery
from .pages import page
from .studio import Studio

__all__ = ["router"]

MAX_ROWS = 1_000_000
FOREVER = {"Cache-Control": "private, max-age=86400, immutable"}

Since = Annotated[int, Field(ge=0)]


class Choice(BaseModel):
    """What a page decides: rows of the images `of`, and how many decisions it knows of."""

    rows: Annotated[list[int], Field(min_length=1, max_length=MAX_ROWS)]
    action: Action
    of: Annotated[str, Field(max_length=64)]
    since: Since = 0


class Undo(BaseModel):
    """That the last decisions are taken back, and how many decisions the page knows of."""

    since: Since = 0


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()
    at = "/api/outliers/{run}"

    @routes.get("/outliers")
    def show(request: Request) -> Response:
        return page(request, studio, "outliers.html.j2")

    @routes.get(f"{at}/rows")
    def rows(run: str) -> Json:
        return Gallery(studio, run).table()

    @routes.get(f"{at}/rows/{{m}}")
    def details(run: str, m: int) -> Json:
        return Gallery(studio, run).details(m)

    @routes.get(f"{at}/pictures/{{m}}")
    def picture(run: str, m: int, of: Annotated[str, Query(max_length=64)] = "") -> Response:
        return _picture(gallery := Gallery(studio, run), gallery.picture(m), of)

    @routes.get(f"{at}/anchors/{{m}}")
    def anchor(run: str, m: int, of: Annotated[str, Query(max_length=64)] = "") -> Response:
        return _picture(gallery := Gallery(studio, run), gallery.anchor(m), of)

    @routes.post(f"{at}/scores")
    def scores(run: str) -> Json:
        """The scores where they are known, else the task that computes them."""
        gallery = Gallery(studio, run)
        if (known := gallery.scores()) is not None:
            return {"scores": known}
        task = studio.worker.submit(f"Scores of {studio.imagined(run)}", gallery.score, f"scores {run}")
        return {"task": task.to_json()}

    @routes.get(f"{at}/curation")
    def curation(run: str, since: Annotated[int, Query(ge=0)] = 0) -> Json:
        gallery = Gallery(studio, run)
        return gallery.decided(gallery.curation(), since)

    @routes.post(f"{at}/curation")
    def decide(run: str, choice: Choice) -> Json:
        gallery = Gallery(studio, run)
        if choice.of != gallery.of:
            raise ValueError("The run has other images by now. Load the page again.")
        return gallery.decided(gallery.decide(choice.rows, choice.action), choice.since)

    @routes.post(f"{at}/undo")
    def undo(run: str, known: Undo) -> Json:
        gallery = Gallery(studio, run)
        curation, undone = gallery.undo()
        return gallery.decided(curation, known.since) | {"undone": undone}

    return routes


def _picture(gallery: Gallery, picture: tuple[bytes, str], of: str) -> Response:
    """A picture, which a browser may keep where its address says of which images it is."""
    content, kind = picture
    return Response(content, media_type=kind, headers=FOREVER if of == gallery.of else {})
