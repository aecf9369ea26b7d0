"""`oodream decode`: the images of a run that was begun, on as many processes and machines as there are; mending and redrawing them.

Nothing is exchanged between processes. Each draws its own rows into the run folder, every file whole or not at all; `oodream run`
finds them there and goes on. A row's image is the same whoever draws it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .config import Config, overlay
from .decode import decode
from .distributed import Shard
from .pipeline import Pipeline, encoded, hash_of_file
from .store import RunDir, StoreError, read_json, write_bytes

STAGE = "images/imagined"


def begun(run: Path) -> Pipeline:
    """The run in a folder, as its `run.json` describes it; StoreError unless its outliers have been sampled."""
    if not (run / "run.json").is_file():
        raise StoreError(f"{run} is not a run folder: it has no run.json. Begin one with: oodream run … --until outliers")
    described = read_json(run / "run.json")
    p = Pipeline(overlay(Config(), described["config"]), RunDir(run), described["command"])
    if not p.run.is_done("outliers", p.stages["outliers"].inputs):
        raise StoreError(f"{run} has no outliers yet. Sample them with: {p.command} --until outliers")
    return p


def draw_shard(p: Pipeline, part: Shard) -> int:
    """Draws this part's images that are not there yet; returns how many. Other processes may work on other parts meanwhile."""
    inputs = p.stages[STAGE].inputs
    if p.run.is_done(STAGE, inputs):
        return 0
    p.run.begin(STAGE, inputs)
    missing = [m for m in part.rows(len(p.outliers), p.config.decode.tile).tolist() if not p.image_files[m].exists()]
    p.draw(torch.tensor(missing, dtype=torch.long))
    return len(missing)


def verify(p: Pipeline, say: Callable[[str], None]) -> int:
    """Draws missing and damaged images of a finished set again; returns how many there were.

    StoreError when one comes out with other bytes than were recorded: another processor or library then draws here.
    """
    if not p.run.is_done(STAGE, p.stages[STAGE].inputs):
        raise StoreError(f"The images of {p.run.path} are not all drawn yet; the run's own command goes on with them.")
    with p.run.locked():
        lines = (p.run / STAGE / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        recorded = {line["row"]: line["hash"] for line in map(json.loads, lines)}

        def damaged(m: int) -> bool:
            return not p.image_files[m].exists() or hash_of_file(p.image_files[m]) != recorded[m]

        rows = [m for m in range(len(p.outliers)) if damaged(m)]
        for m in rows:
            say(f"  row {m}: {p.image_files[m]}")
        p.draw(torch.tensor(rows, dtype=torch.long))
        if differing := [m for m in rows if damaged(m)]:
            raise StoreError(
                f"{len(differing)} of {len(rows)} images came out with other bytes than were recorded (row {differing[0]} first): "
                f"another processor or library draws here. To have all from this one: {p.command} --redo images"
            )
    return len(rows)


def redraw(p: Pipeline, rows: Sequence[int], out: Path) -> list[Path]:
    """Draws single rows into `out`, whatever the run folder holds."""
    if beyond := [m for m in rows if not 0 <= m < len(p.outliers)]:
        raise ValueError(f"There is no row {beyond[0]}: the run has rows 0 to {len(p.outliers) - 1}.")
    files = []
    for made in decode(p.outliers, p.decoder, torch.tensor(rows)):
        for m, data in zip(made.row_B.tolist(), encoded(made.images_B3HW, p.config.decode.format), strict=True):
            files.append(out / p.image_files[m].name)
            write_bytes(files[-1], data)
    return files
