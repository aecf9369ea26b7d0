"""Try: a picture of one's own, and what the classifier says."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from .pages import page
from .studio import Studio

__all__ = ["router"]


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()

    @routes.get("/try")
    def show(request: Request) -> Response:
        return page(request, studio, "try.html.j2")

    return routes
