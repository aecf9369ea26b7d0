"""Outliers: a gallery of what a run has imagined, to keep or to reject."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from .pages import page
from .studio import Studio

__all__ = ["router"]


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()

    @routes.get("/outliers")
    def show(request: Request) -> Response:
        return page(request, studio, "outliers.html.j2")

    return routes
