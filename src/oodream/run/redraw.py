"""`oodream decode`: the images of a run that was begun, on as many processes and machines as there are; mending and redrawing them.

Nothing is exchanged between processes. Each draws its own rows into the run folder, every file whole or not at all; `oodream run`
finds them there and goes on. On machines of one kind a row's image is the same whoever draws it; `verify` tells where it is not.
Only the run folder and the decoder are needed, no data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Config
from ..core.device import device_of
from ..core.distributed import Shard
from ..core.errors import StoreError
from ..core.files import load_tensors, read_json
from ..core.options import overlay
from ..core.registry import make
from ..core.types import Json, SampledVectors
from ..synthesis.decoders.stable import StableDecoder
from .folder import RunDir, hashed
from .generated import OUTPUTS, GeneratedFiles, drawing, imagined


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run whose outliers have been sampled: the command that began it, its images and what they are made from."""

    run: RunDir
    command: str
    stage: str
    drawing: GeneratedFiles
    inputs: Json


def begun(path: Path, device: str, output: str = "") -> Begun:
    """The run in a folder, as its files describe it; StoreError unless its outliers have been sampled.

    `output` may ask for "images" or "latents" other than the run's own; they lie beside those.
    """
    run = RunDir(path)
    if not (run / "run.json").is_file():
        raise StoreError(
            f"{path} is not a run folder: it has no run.json. Begin one with: oodream run … --until outliers"
        )
    described = read_json(run / "run.json")
    if (stamp := run.stamp("outliers")) is None:
        raise StoreError(
            f"{path} has no outliers yet. Sample them with: {described['command']} --until outliers"
        )
    config, told = overlay(Config(), described["config"]), read_json(run / "classes" / "classes.json")
    described["config"]["decode"]["output"] = output = output or config.decode.output
    if output not in OUTPUTS:
        raise ValueError(f"What is drawn are {' or '.join(OUTPUTS)}, not {output!r}.")
    c = replace(config.decode, output=output)
    decoder = StableDecoder(
        c.source, names=told["names"], prompts=told["prompts"], size=config.size, scheduler=c.scheduler, steps=c.steps,
        guidance=c.guidance, tile=c.tile or told["tile"], device=device_of(device),
    )  # fmt: skip
    kind = make("samplers", config.sample.sampler, **config.sample.options).kind
    outliers = SampledVectors(
        **load_tensors(run / "outliers" / "outliers.safetensors"), kind=kind, space=told["space"]
    )
    inputs = {"decode": described["config"]["decode"], "after": {"outliers": hashed(stamp["inputs"])}}
    return Begun(
        run=run,
        command=described["command"],
        stage=imagined(c),
        drawing=drawing(c, outliers, decoder, run.path),
        inputs=inputs,
    )


def draw_shard(b: Begun, part: Shard) -> int:
    """Draws this part's images that are not there yet; returns how many. Other processes may work on other parts meanwhile."""
    if b.run.is_done(b.stage, b.inputs):
        return 0
    b.run.begin(b.stage, b.inputs)
    rows = b.drawing.missing(part)
    b.drawing.draw(rows)
    return len(rows)


def verify(b: Begun, say: Callable[[str], None]) -> int:
    """Draws missing and damaged images of a finished set again; returns how many there were.

    StoreError when one comes out with other bytes than were recorded: another processor or library then draws here.
    """
    if not b.run.is_done(b.stage, b.inputs):
        raise StoreError(f"The images of {b.run.path} are not all drawn yet. Go on with: {b.command}")
    with b.run.locked():
        lines = (b.run / b.stage / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        recorded = {line["row"]: line["hash"] for line in map(json.loads, lines)}
        hashes = {file: b.drawing.hash(file) for file in dict.fromkeys(b.drawing.files)}
        rows = [m for m, value in recorded.items() if hashes[b.drawing.files[m]] != value]
        mended = {b.drawing.files[m]: m for m in reversed(rows)}
        for file in sorted(mended):
            say(f"  row {mended[file]}: {file}")
        b.drawing.draw(rows)
        hashes = {file: b.drawing.hash(file) for file in mended}
        if differing := [m for m in rows if hashes[b.drawing.files[m]] != recorded[m]]:
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
