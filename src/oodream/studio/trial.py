"""Try: a picture of one's own, what the guard says of it, and what moving its threshold costs.

Pictures are read within the limits of a server, answered and forgotten: nothing of them is written anywhere.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Annotated, TypeVar

import anyio
from fastapi import APIRouter, Body, Query, Request, Response
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from ..core.device import device_of
from ..core.errors import shown
from ..core.types import Json
from ..data.preprocess import read_image
from ..deploy.serving.bodies import Bodies
from ..deploy.serving.pictures import Reader
from ..deploy.serving.schema import Answer, Answers
from ..run.artifacts import Run
from ..run.folder import read_manifest
from .guards import InFolder, InRun
from .pages import page
from .studio import Studio
from .subject import Subject

__all__ = ["Trials", "router"]

IMAGE = {"Cache-Control": "private, max-age=600"}  # for known images
KEPT = 4  # subjects, each with two copies of a network and features of known images
T = TypeVar("T")


class Trials:
    """The subjects of a studio's runs, of which a few are kept, and pictures read within limits."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.bodies = Bodies(limits=studio.limits)
        self._places = os.cpu_count() or 1
        self._lock = threading.Lock()
        self._subjects: OrderedDict[str, tuple[Run | None, Subject]] = OrderedDict()

    def subject(self, name: str) -> Subject:
        """What pictures are tried on in a run, or in the folder of a guard.

        Raises UnknownRun, and StoreError where there is no guard.
        """
        device, folder = str(device_of(self.studio.device)), self.studio.folder(name)
        with self._lock:
            run = self.studio.run(name) if read_manifest(folder) else None
            made_from, subject = self._subjects.pop(name, (None, None))
            if subject is None or made_from is not run:
                place = InRun(run, self.studio.sets) if run else InFolder(folder, self.studio.plugins)
                subject = Subject(place.guard(device), place)
            self._subjects[name] = run, subject
            while len(self._subjects) > KEPT:
                self._subjects.popitem(last=False)
            return subject

    async def apply(self, name: str, work: Callable[[Subject], T]) -> T:
        """What `work` makes of a subject, in a thread."""

        return await anyio.to_thread.run_sync(lambda: work(self.subject(name)))

    async def squares(self, name: str, request: Request) -> tuple[list[str], NDArray]:
        """The names of a request's pictures, and the pictures as the run's guard takes them (B, S, S, 3).

        Raises HTTPException for what is refused.
        """
        guard = (await self.apply(name, lambda subject: subject)).guard

        def read(content: bytes) -> NDArray:
            return read_image(BytesIO(content), guard.size, guard.white).permute(1, 2, 0).numpy()

        limits = self.studio.limits
        reader = Reader(read=read, limits=limits, places=self._places)
        try:
            async with self.bodies.read(request) as body:
                with anyio.fail_after(limits.answer_timeout):
                    return await reader.squares(body, request.headers.get("content-type", ""))
        except TimeoutError as error:
            raise HTTPException(
                503, f"The pictures were not read within {limits.answer_timeout:g} seconds."
            ) from error


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes, trials = APIRouter(), Trials(studio)

    @routes.get("/try")
    def show(request: Request) -> Response:
        return page(request, studio, "try.html.j2", limits=studio.limits)

    @routes.get("/api/try/{run}")
    async def facts(run: str) -> Json:
        return await trials.apply(run, Subject.facts)

    @routes.get("/api/try/{run}/at")
    async def at(run: str, alpha: Annotated[float, Query(gt=0, lt=1)]) -> Json:
        return await trials.apply(run, lambda subject: subject.at(alpha))

    @routes.post("/api/try/{run}/pictures")
    async def pictures(run: str, request: Request) -> Response:
        names, squares_B = await trials.squares(run, request)
        predictions = await trials.apply(run, lambda subject: subject.answers(squares_B))
        answers = [
            Answer(file=name or None, **vars(one)) for name, one in zip(names, predictions, strict=True)
        ]
        guarantee = (await trials.apply(run, lambda subject: subject)).guard.guarantee
        text = Answers(predictions=answers, guarantee=str(guarantee)).model_dump_json(exclude_none=True)
        return Response(text, media_type="application/json")

    @routes.post("/api/try/{run}/nearest")
    async def nearest(run: str, request: Request) -> Json:
        _, squares_B = await trials.squares(run, request)
        return {"nearest": await trials.apply(run, lambda subject: subject.nearest(squares_B))}

    @routes.get("/api/try/{run}/known/{row}")
    def known(run: str, row: int) -> Response:
        return Response(
            studio.sets.picture(studio.run(run), "train", row), media_type="image/png", headers=IMAGE
        )

    @routes.post("/api/try/{run}/save")
    async def save(run: str, alpha: Annotated[float, Body(gt=0, lt=1, embed=True)]) -> Json:
        from ..run.guards import save_guard  # with the hub's client, which takes a second

        def work(subject: Subject) -> Json:
            guard = subject.guard.at(alpha)
            folder, new = save_guard(subject.place.home, guard, subject.place.measured())
            return {"folder": shown(folder), "new": new, "guarantee": str(guard.guarantee)}

        return await trials.apply(run, work)

    return routes
