"""Imagine: pictures on demand from the run's decoder."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from .pages import page
from .studio import Studio

__all__ = ["router"]


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()

    @routes.get("/imagine")
    def show(request: Request) -> Response:
        return page(request, studio, "imagine.html.j2")

    return routes
