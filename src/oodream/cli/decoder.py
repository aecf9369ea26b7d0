"""cli.decoder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..config import FitDecoderConfig
from .console import say


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw a run's outliers: a share of them (under torchrun or accelerate each process its own), damaged ones, or single ones."""

    run: Annotated[Path, tyro.conf.Positional]
    """run folder in which outliers have been sampled (oodream run … --until outliers)"""
    output: Annotated[str, tyro.conf.arg(name="as")] = ""
    """images or latents, where they should be other than the run's own"""
    shard: str = ""
    """i/n draws the i-th of n parts, counted from 0; `oodream run` then goes on with what all have drawn"""
    verify: bool = False
    """draw only images that are missing or damaged"""
    row: tuple[int, ...] = ()
    """draw these rows once more, into --out"""
    out: Path = Path("redrawn")
    """where --row draws"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def draw(args: Sequence[str]) -> int:
    """`oodream decode`."""
    chosen = tyro.cli(Draw, prog="oodream decode", args=list(args))

    from ..core import distributed
    from ..run import redraw as drawing

    begun = drawing.begun(chosen.run, chosen.device, chosen.output)
    if chosen.row:
        for file in drawing.redraw(begun, chosen.row, chosen.out):
            print(file)
    elif chosen.verify:
        print(f"{drawing.verify(begun, say)} images were missing or damaged")
    else:
        part = distributed.shard(chosen.shard) if chosen.shard else distributed.current_shard()
        n = drawing.draw_shard(begun, part)
        print(f"{n} images drawn (part {part.index} of {part.count}). Go on with: {begun.command}")
    return 0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train a small Stable Diffusion (diffusers folder) from captioned images. The same command again resumes."""

    images: Annotated[Path, tyro.conf.Positional]
    """folder of images with a metadata.jsonl (file_name, text, optional weight), or of folders named as their captions"""
    out: Path
    """folder to write"""
    options: Annotated[FitDecoderConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FitDecoderConfig
    )


def fit(args: Sequence[str]) -> int:
    """`oodream fit-decoder`."""
    chosen = tyro.cli(Fit, prog="oodream fit-decoder", args=list(args))

    from ..core.device import device_of
    from ..data.captions import captioned_folder
    from ..synthesis.fit_decoder import fit_decoder

    images, captions, weights = captioned_folder(chosen.images, chosen.options.resolution)
    print(f"{len(images)} images, {len(set(captions))} captions", flush=True)
    summary = fit_decoder(
        images, captions, weights, chosen.out, chosen.options, device_of(chosen.options.device)
    )
    print(json.dumps(summary, indent=2))
    return 0
