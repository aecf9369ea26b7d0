"""Imagine: pictures on demand from the run's decoder, and those that a person likes added to its outliers.

Each picture is a task of the studio's worker. A picture is known by a key, a hash of its recipe and of what
it is drawn with. The latest ones are remembered; any is drawn again from its recipe, the same to the byte.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from ..core.options import to_json
from ..core.types import Decoder, Json
from ..run.added import read_added, remove_picture
from ..run.artifacts import Run
from ..run.folder import inputs_hash
from ..run.imagine import Drawing, Recipe, add_drawing, draw, drawable_words, opinion
from ..run.lacking import lacks_outlier_images
from ..run.layout import KINDS, REGULARIZED, classifier_stage
from ..run.redraw import open_decoder
from .pages import page
from .studio import Studio
from .tasks import Task

__all__ = ["Numbers", "Recipes", "Sketches", "added_to", "router"]

AT_ONCE = 32  # pictures in one request
WAITING = 128  # pictures that wait, of all pages
REMEMBERED = 64_000_000  # bytes of pictures
SUGGESTED = 30  # words


class Recipes(BaseModel):
    """Pictures to draw."""

    model_config = ConfigDict(extra="forbid")

    recipes: Annotated[list[Recipe], Field(min_length=1, max_length=AT_ONCE)]


class Numbers(BaseModel):
    """Tasks, or added pictures, by number."""

    model_config = ConfigDict(extra="forbid")

    numbers: Annotated[list[int], Field(max_length=WAITING)]


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A drawing, and what the run's classifiers say of it, by their kind."""

    drawing: Drawing
    opinions: Json

    def to_json(self, key: str) -> Json:
        """What the page is told of it."""
        drawing = self.drawing
        return {"key": key, "recipe": to_json(drawing.recipe), **drawing.facts, "opinions": self.opinions}


class Sketches:
    """The decoder that was used last, and the pictures that were drawn last, of all runs."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._pictures: OrderedDict[str, Sketch] = OrderedDict()
        self._decoder: tuple[str, Decoder] | None = None
        self._lock = threading.Lock()

    def decoder(self, run: Run) -> Decoder:
        """The run's decoder, loaded where it is not the one that was used last."""
        identity = self.identity(run)
        if self._decoder is None or self._decoder[0] != identity:
            self._decoder = None  # memory need not hold both
            self._decoder = identity, open_decoder(run, self.studio.device)
        return self._decoder[1]

    def loaded(self, run: Run) -> Decoder | None:
        """The run's decoder, if it has been loaded."""
        held = self._decoder
        return held[1] if held and held[0] == self.identity(run) else None

    def identity(self, run: Run) -> str:
        """A hash of what decoder a run means, but for what a recipe says itself."""
        decode = {
            k: v for k, v in to_json(run.config.decode).items() if k not in ("steps", "guidance", "tile")
        }
        return _digest(decode, run.book.names, run.book.prompts, run.book.space, run.config.size)

    def key(self, run: Run, recipe: Recipe) -> str:
        """A hash of all that the recipe's picture depends on."""
        rows = any(end.kind == "row" for end in recipe.ends)
        stamp = run.stamp("vectors") if rows else None
        return _digest(self.identity(run), to_json(recipe), inputs_hash(stamp["inputs"]) if stamp else "")

    def find(self, key: str) -> Sketch | None:
        """A picture that is remembered."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def drawn(self, name: str, recipe: Recipe, task: Task) -> Sketch:
        """The recipe's picture, remembered or drawn; the task tells how far it is, and can be stopped."""
        run = self.studio.run(name)
        key = self.key(run, recipe)
        if known := self.find(key):
            return known
        task.progress(0.0, "loading the decoder" if self.loaded(run) is None else "drawing")
        decoder = self.decoder(run)
        task.progress(0.0, "drawing")
        drawing = draw(
            recipe, run, decoder, lambda done, of: task.progress(done / of, f"step {done} of {of}")
        )
        sketch = Sketch(drawing=drawing, opinions=self._opinions(name, run, drawing.png))
        self._keep(key, sketch)
        return sketch

    def _opinions(self, name: str, run: Run, png: bytes) -> Json:
        """What the classifiers that are trained say of a picture."""
        read = partial(self.studio.cached, name)
        return {
            kind: opinion(png, read(("classifier", kind, 0), partial(run.classifier, kind, 0)))
            for kind in KINDS
            if run.stamp(classifier_stage(kind, 0))
        }

    def _keep(self, key: str, sketch: Sketch) -> None:
        with self._lock:
            self._pictures[key] = sketch
            while sum(len(kept.drawing.png) for kept in self._pictures.values()) > REMEMBERED:
                self._pictures.popitem(last=False)


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes, sketches = APIRouter(), Sketches(studio)
    _drawing(routes, studio, sketches)
    _adding(routes, studio, sketches)

    @routes.get("/imagine")
    def show(request: Request) -> Response:
        return page(request, studio, "imagine.html.j2")

    @routes.get("/api/imagine/{name}")
    def about(name: str) -> Json:
        run = studio.run(name)
        decode = run.config.decode
        return {
            "classes": run.book.names,
            "rows": len(run.vectors) if run.imagines and run.stamp("vectors") else 0,
            "steps": decode.steps,
            "guidance": decode.guidance,
            "loaded": sketches.loaded(run) is not None,
            **added_to(run),
        }

    @routes.get("/api/imagine/{name}/rows/{row}")
    def row(name: str, row: int) -> Json:
        run = studio.run(name)
        if not 0 <= row < len(run.vectors):
            raise ValueError(
                f"There is no row {row}: the run has {len(run.vectors)} vectors, counted from 0."
            )
        return {"row": row, "class": run.book.names[int(run.vectors.y_M[row])]}

    @routes.get("/api/imagine/{name}/words")
    def words(name: str, starts: Annotated[str, Query(max_length=64)] = "") -> list[str]:
        run = studio.run(name)
        if (decoder := sketches.loaded(run)) is None:
            return []
        known = studio.cached(name, "words", lambda: drawable_words(run, decoder))
        return suggestions(known, starts)

    return routes


def _drawing(routes: APIRouter, studio: Studio, sketches: Sketches) -> None:
    @routes.post("/api/imagine/{name}/decoder")
    def load(name: str) -> Json:
        run = studio.run(name)

        def work(task: Task) -> None:
            task.progress(0.0, "loading the decoder")
            decoder = sketches.decoder(run)
            studio.cached(name, "words", lambda: drawable_words(run, decoder))

        return studio.worker.submit("decoder", work, f"decoder {sketches.identity(run)}").to_json()

    @routes.post("/api/imagine/{name}/draw")
    def begin(name: str, asked: Recipes) -> list[Json]:
        run = studio.run(name)
        waiting = sum(not task.over.is_set() for task in studio.worker.tasks())
        if waiting + len(asked.recipes) > WAITING:
            raise HTTPException(429, f"{waiting} pictures wait already. Stop some, or wait for them.")
        return [
            {**_submitted(studio, sketches, name, recipe).to_json(), "key": sketches.key(run, recipe)}
            for recipe in asked.recipes
        ]

    @routes.get("/api/imagine/{name}/tasks")
    def tasks(name: str, number: Annotated[list[int], Query(max_length=WAITING)]) -> list[Json]:
        wanted = set(number)
        return [task.to_json() for task in studio.worker.tasks() if task.id in wanted]

    @routes.post("/api/imagine/{name}/stop")
    def stop(name: str, some: Numbers) -> list[Json]:
        wanted = [task for task in studio.worker.tasks() if task.id in set(some.numbers)]
        for task in wanted:
            task.stop()
        return [task.to_json() for task in wanted]

    @routes.get("/api/imagine/{name}/pictures/{key}")
    def facts(name: str, key: str) -> Json:
        return _known(sketches, key).to_json(key)

    @routes.get("/api/imagine/{name}/pictures/{key}/png")
    def picture(name: str, key: str) -> Response:
        png = _known(sketches, key).drawing.png
        return Response(png, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


def _adding(routes: APIRouter, studio: Studio, sketches: Sketches) -> None:
    @routes.post("/api/imagine/{name}/add")
    def add(name: str, asked: Recipes) -> Json:
        """Adds pictures at once where all are remembered, else by a task that draws them again."""
        run = studio.run(name)
        known = [sketches.find(sketches.key(run, recipe)) for recipe in asked.recipes]

        def work(task: Task) -> None:
            for recipe in asked.recipes:
                add_drawing(sketches.drawn(name, recipe, task).drawing, run)

        if any(sketch is None for sketch in known):
            return {"task": studio.worker.submit("adding", work).to_json(), **added_to(run)}
        for sketch in known:
            assert sketch is not None
            add_drawing(sketch.drawing, run)
        return {"task": None, **added_to(run)}

    @routes.post("/api/imagine/{name}/remove")
    def remove(name: str, some: Numbers) -> Json:
        run = studio.run(name)
        for number in some.numbers:
            remove_picture(run.layout.added, number)
        return added_to(run)

    @routes.get("/api/imagine/{name}/added/{number}/png")
    def added_picture(name: str, number: int) -> Response:
        added = read_added(studio.run(name).layout.added)
        for line in added.lines:
            if line["number"] == number:
                file = studio.inside(name, added.folder / line["file_name"])
                return FileResponse(file, media_type="image/png", headers={"ETag": line["hash"]})
        raise HTTPException(404, f"No picture has the number {number}: it has been removed.")


def added_to(run: Run) -> Json:
    """What has been added to a run by hand: the pictures, why it takes none, and whether the classifier that
    is there was trained with these.
    """
    added = read_added(run.layout.added)
    lines = [{key: value for key, value in line.items() if key != "vector"} for line in added.lines]
    stamp = run.stamp(classifier_stage(REGULARIZED, 0))
    with_these = added.fingerprint if len(added) else None
    return {
        "added": lines,
        "adds_nothing": lacks_outlier_images(run, imagined=True),
        "trained": stamp is not None and stamp["inputs"].get("added") == with_these,
    }


def suggestions(words: Sequence[str], starts: str) -> list[str]:
    """Some of the words: those that begin so first, then those that hold it."""
    text = starts.strip().casefold()
    first = [word for word in words if word.casefold().startswith(text)]
    others = [word for word in words if text in word.casefold() and not word.casefold().startswith(text)]
    return [*first, *others][:SUGGESTED]


def _submitted(studio: Studio, sketches: Sketches, name: str, recipe: Recipe) -> Task:
    return studio.worker.submit("picture", lambda task: sketches.drawn(name, recipe, task) and None)


def _known(sketches: Sketches, key: str) -> Sketch:
    if (sketch := sketches.find(key)) is None:
        raise HTTPException(404, "This picture is not remembered any more. Draw it again.")
    return sketch


def _digest(*facts: Any) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
