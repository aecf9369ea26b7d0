"""The studio's application: its parts, their pages, static files, and errors in the library's own words."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Form, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from .. import __version__
from ..core.files import ASSETS
from . import compare, imagine, jobs, outliers, reports, trial
from .pages import TEMPLATES, page
from .safety import COOKIE, Safety, cookie_value, same
from .studio import Studio, UnknownRun
from .tasks import Task

__all__ = ["create_app"]

STATIC = "no-cache"  # asked each time whether it has changed


def create_app(studio: Studio, token: str | None = None) -> FastAPI:
    """An application with the pages of a studio.

    With a `token`, a browser is asked for it once, and other programs send it as a bearer. Without one the
    studio is for its own machine alone.
    """
    app = FastAPI(
        title="oodream studio", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.service = studio
    app.add_middleware(Safety, token=token)
    _add_errors(app, studio)
    _add_pages(app, studio, token)
    _add_tasks(app, studio)
    for part in (outliers, imagine, trial, compare, jobs, reports):
        app.include_router(part.router(studio))
    app.mount("/static", _Static(directory=TEMPLATES / "static"))
    return app


def _add_pages(app: FastAPI, studio: Studio, token: str | None) -> None:
    @app.get("/")
    def landing(request: Request) -> Response:
        return page(request, studio, "landing.html.j2")

    @app.get("/static/look.css")
    def look() -> Response:
        return FileResponse(ASSETS / "report" / "look.css", headers={"Cache-Control": STATIC})

    @app.get("/static/figures.css")
    def figures() -> Response:
        return FileResponse(ASSETS / "report" / "figures.css", headers={"Cache-Control": STATIC})

    @app.get("/enter")
    def ask(request: Request) -> Response:
        return page(request, studio, "enter.html.j2", runs=[], run="", wrong=False)

    @app.post("/enter")
    def enter(request: Request, word: Annotated[str, Form(max_length=1000)] = "") -> Response:
        if token is None or not same(word.strip(), token):
            return page(request, studio, "enter.html.j2", 401, runs=[], run="", wrong=True)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, cookie_value(token), httponly=True, samesite="lax")
        return answer


def _add_tasks(app: FastAPI, studio: Studio) -> None:
    """How far heavy work is, for all parts."""

    @app.get("/api/tasks/{number}")
    def task(number: int) -> JSONResponse:
        return JSONResponse(_task(studio, number).to_json())

    @app.post("/api/tasks/{number}/stop")
    def stop(number: int) -> JSONResponse:
        found = _task(studio, number)
        found.stop()
        return JSONResponse(found.to_json())


def _task(studio: Studio, number: int) -> Task:
    try:
        return studio.worker.task(number)
    except KeyError:
        raise HTTPException(404, "There is no such task any more.") from None


def _add_errors(app: FastAPI, studio: Studio) -> None:
    def answer(request: Request, status: int, text: str) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": text}, status)
        chosen = request.query_params.get("run", "")
        run = chosen if chosen in studio.names else ""
        return page(request, studio, "error.html.j2", status, text=text, run=run)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        words = {404: "There is no such page.", 405: "This cannot be done here."}
        plain = error.detail in ("Not Found", "Method Not Allowed")
        return answer(request, error.status_code, words[error.status_code] if plain else error.detail)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
        return answer(request, 422, "; ".join(problems) + ".")

    @app.exception_handler(UnknownRun)
    def unknown(request: Request, error: UnknownRun) -> Response:
        return answer(request, 404, str(error))

    def refused(request: Request, error: Exception) -> Response:
        return answer(request, 422, str(error))

    for kind in (ValueError, RuntimeError, ArithmeticError, OSError):
        app.add_exception_handler(kind, refused)


class _Static(StaticFiles):
    """Files of the package, which a newer version may replace."""

    def file_response(self, *args, **options):  # type: ignore[no-untyped-def]
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = STATIC
        return response
