"""Run: runs that are started, stopped and resumed from the page, each a process of its own that outlives the
studio.

The page chooses among known options. No text of it reaches a shell, and what is wrong with the images or the
options is said in the command line's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ..config.run import Config
from ..core.errors import StoreError
from ..core.files import write_json
from ..core.options import ConfigError, overlay
from ..core.types import Json
from ..data.inputs import DataInputs
from ..data.sets import SETS
from ..data.source import HUB
from ..models.classifier import check_plugin
from ..presets import PRESETS
from ..run.artifacts import named_extensions
from ..run.folder import check_place, read_manifest
from ..run.layout import Layout
from ..run.process import last_begun, recorded, start, status, stop
from .pages import page
from .reports import comparison_of
from .studio import Studio

__all__ = ["NewRun", "arguments_of", "begun_below", "resumed", "router", "standing"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
AT_WORK = ("running", "stopping")
OPTIONS = "process-options.json"  # of a run that was begun elsewhere, in its folder
ELSEWHERE = (
    "Runs are started from this machine alone, and this studio can be reached from others. "
    "Start them in a terminal, or a studio with --host 127.0.0.1."
)


class NewRun(BaseModel):
    """What the page asks for: a preset, the images, a name for the run, and how many classifiers of each
    kind.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=64)]
    preset: str = "folder"
    data: Annotated[str, Field(max_length=4096)] = ""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1


class Again(BaseModel):
    """How a run goes on: as it was, or with stages made afresh whose inputs have changed."""

    model_config = ConfigDict(extra="forbid")

    changed: bool = False


class Halt(BaseModel):
    """How a run is stopped: as by Ctrl-C, or at once."""

    model_config = ConfigDict(extra="forbid")

    force: bool = False


def router(studio: Studio) -> APIRouter:
    """The part's page, and what it asks."""
    routes = APIRouter()
    for folder in begun_below(studio.root):
        studio.add(folder)

    @routes.get("/run")
    def show(request: Request) -> Response:
        presets = {name: (preset.about, preset.config.data) for name, preset in PRESETS.items()}
        return page(request, studio, "run.html.j2", presets=presets, allowed=studio.starts_runs)

    @routes.get("/api/run")
    def overview() -> list[Json]:
        return listed(studio)

    @routes.post("/api/run")
    def begin(asked: NewRun) -> Json:
        check_allowed(studio)
        folder = studio.root / asked.name
        start(folder, arguments_of(asked, folder))
        return standing(studio, studio.add(folder))

    @routes.post("/api/run/{name}/stop")
    def halt(name: str, how: Halt) -> Json:
        check_allowed(studio)
        stop(studio.folder(name), how.force)
        return standing(studio, name)

    @routes.post("/api/run/{name}/resume")
    def resume(name: str, how: Again) -> Json:
        check_allowed(studio)
        folder = studio.folder(name)
        start(folder, resumed(folder, how.changed, studio.plugins))
        return standing(studio, name)

    return routes


def check_allowed(studio: Studio) -> None:
    """Raises HTTPException where other machines reach the studio."""
    if not studio.starts_runs:
        raise HTTPException(403, ELSEWHERE)


def listed(studio: Studio) -> list[Json]:
    """What the page shows of all runs: those at work first, and of both the newest first."""
    found = sorted(studio.runs, key=lambda name: last_begun(studio.folder(name)), reverse=True)
    return sorted((standing(studio, name) for name in found), key=lambda one: one["state"] not in AT_WORK)


def standing(studio: Studio, name: str) -> Json:
    """What the page shows of a run."""
    folder = studio.folder(name)
    others = [place for other in studio.names if other != name and (place := studio.folder(other)).is_dir()]
    try:
        state = asdict(status(folder, others))
        command = (read_manifest(folder) or {}).get("command", "")
    except (StoreError, OSError) as error:
        state, command = {"state": "damaged", "message": str(error), "stages": []}, ""
    return {
        "name": name,
        "folder": str(folder),
        "command": command,
        "imagined": studio.imagined(name),
        "report": Layout(folder).report.is_file(),
        "comparison": comparison_of(studio, name) is not None,
        **state,
    }


def begun_below(root: Path) -> list[Path]:
    """The folders in which a run was started from a studio, even if it was refused before it began."""
    return sorted(file.parent for file in root.glob("*/process.json"))


def arguments_of(asked: NewRun, folder: Path) -> list[str]:
    """The words of the command line that starts the run.

    Raises ConfigError for a preset, a name or data that cannot be, StoreError for a folder that is there,
    and of images on this machine DataError for what is wrong with them, as far as it is known before one is
    opened.
    """
    if asked.preset not in PRESETS:
        raise ConfigError(f"There is no preset {asked.preset!r}. There are: {', '.join(PRESETS)}.")
    if not NAME.fullmatch(asked.name):
        raise ConfigError(
            "A run's name has up to 64 letters, digits, dots, hyphens and underscores, and begins with a "
            f"letter or a digit; not {asked.name!r}."
        )
    check_place(folder)
    if read_manifest(folder):
        raise StoreError(f"There is a run {asked.name!r} already. Resume it, or choose another name.")
    config = replace(PRESETS[asked.preset].config, seeds=asked.seeds)
    if asked.data:
        config = replace(config, data=_place(asked.data))
    if not config.data:
        raise ConfigError("Which images? Name a folder of class folders, or choose a preset that has some.")
    if not config.data.startswith(HUB):  # these are fetched, by the run
        DataInputs(config).check()
    return [
        "run", f"--preset={asked.preset}", f"--data={config.data}", f"--seeds={asked.seeds}",
        f"--run={folder.resolve()}",
    ]  # fmt: skip


def _are_ours(words: Sequence[str], folder: Path) -> bool:
    """Whether `arguments_of`, or `resumed` after it, may have written these words for this folder."""
    run, own = f"--run={folder.resolve()}", ("--preset=", "--data=", "--seeds=")
    others = [word for word in words[1:] if word not in (run, "--redo=changed")]
    return [*words[:1]] == ["run"] and run in words and all(word.startswith(own) for word in others)


def _place(data: str) -> str:
    """The data as typed; a folder as an absolute path."""
    known = data in SETS or data.startswith(HUB)
    return data if known else str(Path(data).expanduser().absolute())


def resumed(folder: Path, changed: bool, plugins: bool) -> list[str]:
    """The words of the command line that goes on with a run: those that it was started with here, or else its
    recorded configuration.

    Words in its folder that `arguments_of` would not have written for it count for nothing: whoever made the
    folder could make this machine do anything by them.

    Raises StoreError for a folder that holds no run, and, without `plugins`, for a run that names extensions
    by their modules, whose code would run.
    """
    again = ["--redo=changed"] if changed else []
    if (record := recorded(folder)) and _are_ours(record["arguments"], folder):
        return [*(word for word in record["arguments"] if word != "--redo=changed"), *again]
    if (manifest := read_manifest(folder)) is None:
        raise StoreError(f"{folder} is not a run folder: it has no run.json.")
    for name in named_extensions(overlay(Config(), manifest["config"])):
        check_plugin(name, folder, plugins)
    options = folder / OPTIONS
    write_json(options, manifest["config"])
    return ["run", "--preset=folder", f"--config={options}", f"--run={folder}", *again]
