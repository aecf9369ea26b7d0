"""The studio's pages: templates and what all of them are told."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from ..core.files import ASSETS
from ..report.template import filters
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


def page(request: Request, studio: Studio, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A template's page. `part` is the path of the part it belongs to, and `run` the name of the chosen run
    (of the query, or the first).

    Names come from users, so the templates escape everything.
    """
    chosen = request.query_params.get("run", "")
    names = studio.names
    common = {
        "part": request.url.path.strip("/"),
        "parts": PARTS,
        "runs": names,
        "run": chosen if chosen in names else next(iter(names), ""),
    }
    return HTMLResponse(fragment(template, **common | values), status)


def fragment(template: str, **values: Any) -> str:
    """A template's text, which UTF-8 can hold. Those of the report are at hand."""
    text = _environment().get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace").decode()


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader([TEMPLATES, ASSETS / "report"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters()
    return environment
