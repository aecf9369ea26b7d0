"""The server's application: /predict, /health and /metrics, for any guard."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ... import __version__
from ...core.errors import brief, did_you_mean
from .limits import Limits
from .schema import BODY, Answers, Health, Problem
from .service import How, Servable, Service
from .watch import Watch

__all__ = ["create_app"]

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
ABOUT = """A guard: of each picture it says which known class it shows, or that it is unknown.

No picture is written to disk, or kept once it is answered."""
REFUSALS = {
    401: "There is no token, or a wrong one.",
    408: "The body took too long to come.",
    411: "The body's length is not stated.",
    413: "The body is too long, or holds too many pictures.",
    415: "The body is of a type that the server does not take.",
    422: "A picture cannot be read or is too large, or what is asked for cannot be guaranteed.",
    429: "The client has too much under way. Wait for its answers.",
    503: "The server has too much to do. Try again.",
}
BEARER = HTTPBearer(auto_error=False, description="the token that the server was started with")


def create_app(guard: Servable, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """An application that serves a guard; `app.state.service` is what it keeps.

    With a `token`, /predict and /metrics ask for it. Without one the server is meant for its own machine
    alone: requests must be addressed to it by a name of the loopback, so no page in a browser can ask it
    under a name of its own.
    """
    service = Service(guard, limits or Limits())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.batcher.run)
            yield
            tasks.cancel_scope.cancel()

    app = FastAPI(
        title="oodream",
        description=ABOUT,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK, www_redirect=False)
    app.add_middleware(Watch, service=service)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_routes(app, service, [] if token is None else [Depends(_asks_for(token))])
    return app


def _add_routes(app: FastAPI, service: Service, dependencies: list[Any]) -> None:
    @app.post(
        "/predict",
        response_model=Answers,
        response_model_exclude_none=True,
        responses={code: {"model": Problem, "description": text} for code, text in REFUSALS.items()},
        openapi_extra=BODY,
        dependencies=[*dependencies, Depends(_check_parameters)],
    )
    async def predict(
        request: Request,
        alpha: Annotated[
            float | None,
            Query(
                gt=0, lt=1, description="share of known pictures that may be flagged, in place of the guard's"
            ),
        ] = None,
        candidates: Annotated[
            float | None,
            Query(
                gt=0, lt=1, description="with sets of classes, of which this share may miss the true class"
            ),
        ] = None,
    ) -> Response:
        """Says of each picture of a request which class it shows, or that it is unknown."""
        answers = await service.answer(request, How(alpha, candidates))
        return Response(answers.model_dump_json(exclude_none=True), media_type="application/json")

    @app.get("/health", response_model=Health, responses={503: {"model": Health, "description": "It stops."}})
    async def health() -> Response:
        """Whether the server takes requests."""
        status = "stopping" if service.stopping else "ok"
        return JSONResponse({"status": status}, 503 if service.stopping else 200)

    @app.get("/metrics", response_class=Response, dependencies=dependencies)
    def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _asks_for(token: str) -> Callable[..., None]:
    """A dependency that refuses requests without the token."""

    def check(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        given = "" if credentials is None else credentials.credentials
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise HTTPException(401, "The server asks for its token.", {"WWW-Authenticate": "Bearer"})

    return check


def _check_parameters(request: Request) -> None:
    """Refuses parameters in the address that are none, or that are there twice: they would change nothing."""
    known = [field.name for field in fields(How)]
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            hint = did_you_mean(name, known) or f" There are: {', '.join(known)}."
            raise HTTPException(422, f"There is no parameter {brief(name)}.{hint}")
        if count > 1:
            raise HTTPException(422, f"The parameter {name!r} is there {count} times.")


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Words for an option that is out of range."""
    assert isinstance(error, RequestValidationError)
    problems = [f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors()]
    return JSONResponse({"detail": "; ".join(problems) + "."}, 422)
