"""`oodream decode`: the images of a run that was begun, on as many processes and machines as there are; mending and redrawing them.

Nothing is exchanged between processes. Each draws its own rows into the run folder, every file whole or not at all; `oodream run`
finds them there and goes on. On machines of one kind a row's image is the same whoever draws it; `verify` tells where it is not.
Only the run folder and the decoder are needed, no data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import Config, overlay
from .decode import Drawing
from .decoders.stable import StableDecoder
from .distributed import Shard
from .pipeline import IMAGINED, device_of, hashed
from .registry import make
from .store import RunDir, StoreError, load_tensors, read_json
from .types import Json, Outliers


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run whose outliers have been sampled: the command that began it, its images and what they are made from."""

    run: RunDir
    command: str
    drawing: Drawing
    inputs: Json


def begun(path: Path, device: str) -> Begun:
    """The run in a folder, as its files describe it; StoreError unless its outliers have been sampled."""
    run = RunDir(path)
    if not (run / "run.json").is_file():
        raise StoreError(f"{path} is not a run folder: it has no run.json. Begin one with: oodream run … --until outliers")
    described = read_json(run / "run.json")
    if (stamp := run.stamp("outliers")) is None:
        raise StoreError(f"{path} has no outliers yet. Sample them with: {described['command']} --until outliers")
    config, told = overlay(Config(), described["config"]), read_json(run / "classes" / "classes.json")
    c = config.decode
    decoder = StableDecoder(
        c.source, names=told["names"], prompts=told["prompts"], size=config.size, scheduler=c.scheduler, steps=c.steps,
        guidance=c.guidance, tile=told["tile"], device=device_of(device),
    )  # fmt: skip
    kind = make("samplers", config.sample.sampler, **config.sample.options).kind
    outliers = Outliers(**load_tensors(run / "outliers" / "outliers.safetensors"), kind=kind, space=told["space"])
    drawing = Drawing(outliers=outliers, decoder=decoder, folder=run / IMAGINED, format=c.format)
    return Begun(run=run, command=described["command"], drawing=drawing, inputs={"after": {"outliers": hashed(stamp["inputs"])}})


def draw_shard(b: Begun, part: Shard) -> int:
    """Draws this part's images that are not there yet; returns how many. Other processes may work on other parts meanwhile."""
    if b.run.is_done(IMAGINED, b.inputs):
        return 0
    b.run.begin(IMAGINED, b.inputs)
    rows = part.rows(len(b.drawing.outliers), b.drawing.decoder.tile).tolist()
    return len(b.drawing.draw([m for m in rows if not b.drawing.files[m].exists()]))


def verify(b: Begun, say: Callable[[str], None]) -> int:
    """Draws missing and damaged images of a finished set again; returns how many there were.

    StoreError when one comes out with other bytes than were recorded: another processor or library then draws here.
    """
    if not b.run.is_done(IMAGINED, b.inputs):
        raise StoreError(f"The images of {b.run.path} are not all drawn yet. Go on with: {b.command}")
    with b.run.locked():
        lines = (b.run / IMAGINED / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        recorded = {line["row"]: line["hash"] for line in map(json.loads, lines)}
        rows = [m for m, value in recorded.items() if b.drawing.hash(m) != value]
        for m in rows:
            say(f"  row {m}: {b.drawing.files[m]}")
        b.drawing.draw(rows)
        if differing := [m for m in rows if b.drawing.hash(m) != recorded[m]]:
            raise StoreError(
                f"{len(differing)} of {len(rows)} images came out with other bytes than were recorded (row {differing[0]} first): "
                f"another processor or library draws here. To have all from this one: {b.command} --redo images"
            )
    return len(rows)


def redraw(b: Begun, rows: Sequence[int], out: Path) -> list[Path]:
    """Draws single rows into `out`, whatever the run folder holds."""
    if beyond := [m for m in rows if not 0 <= m < len(b.drawing.outliers)]:
        raise ValueError(f"There is no row {beyond[0]}: the run has rows 0 to {len(b.drawing.outliers) - 1}.")
    return b.drawing.draw(list(rows), out)
