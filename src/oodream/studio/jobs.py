"""Run: runs that are started, stopped and resumed from the page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from .pages import page
from .studio import Studio

__all__ = ["router"]


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()

    @routes.get("/run")
    def show(request: Request) -> Response:
        return page(request, studio, "run.html.j2")

    return routes
