"""`oodream decode` and `fit-decoder`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..config import FitDecoderConfig
from ..core.options import ConfigError
from .console import Engine, parse, say, working_in, writing_to

__all__ = ["decode", "fit"]


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Decode a run's vectors: a share of them, damaged ones, or single ones.

    Under torchrun or accelerate each process takes a share of its own.
    """

    run: Annotated[str, tyro.conf.Positional]
    """run folder in which vectors have been sampled (oodream run … --until vectors), or one in a bucket"""
    output: Annotated[Literal["", "images", "latents"], tyro.conf.arg(name="as")] = ""
    """images or latents, where they should be other than the run's own"""
    shard: str = ""
    """i/n decodes the i-th of n parts, counted from 0; then `oodream run` goes on with what all have done"""
    engine: Engine = "here"
    """here, or ray: the workers of a cluster of Ray share the work; RAY_ADDRESS names one"""
    verify: bool = False
    """decode only images that are missing or damaged"""
    row: tuple[int, ...] = ()
    """decode these rows once more, into --out"""
    out: str = "redrawn"
    """where --row writes, here or in a bucket"""
    plugins: bool = False
    """allow extensions that are named by their module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Train a small Stable Diffusion (diffusers folder) from captioned images. The same command again
    resumes.
    """

    images: Annotated[Path, tyro.conf.Positional]
    """folder of captioned images (metadata.jsonl or .csv, .txt files beside the images, or folders named as
    their captions)
    """
    out: str
    """folder to write, or one in a bucket"""
    options: Annotated[FitDecoderConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FitDecoderConfig
    )


def decode(args: Sequence[str]) -> int:
    """`oodream decode`."""
    chosen = parse(DecodeOptions, "oodream decode", args)
    if chosen.engine == "ray" and (chosen.shard or chosen.verify or chosen.row):
        raise ConfigError("--engine ray decodes all that is missing: leave --shard, --verify and --row.")

    with working_in(chosen.run) as folder:
        return _decode_in(folder, chosen)


def _decode_in(folder: Path, chosen: DecodeOptions) -> int:
    from ..core.distributed import current_shard, shard
    from ..run import redraw

    begun = redraw.open_begun(folder, chosen.device, chosen.output, chosen.plugins)
    if chosen.row:
        with writing_to(chosen.out, last="", again=True) as out:
            files = [file.relative_to(out) for file in redraw.redraw(begun, chosen.row, out)]
        for file in files:
            print(f"{chosen.out.rstrip('/')}/{file}")
    elif chosen.verify:
        print(f"{redraw.verify(begun, say)} images were missing or damaged")
    elif chosen.engine == "ray":
        from ..core.cluster import Cluster
        from ..run.on_cluster import decode_on

        with Cluster(chosen.device) as cluster:
            n = decode_on(cluster, begun, chosen.device)
        print(f"{n} images decoded by the cluster. Go on with: {begun.run.command}")
    else:
        part = shard(chosen.shard) if chosen.shard else current_shard()
        n = redraw.decode_shard(begun, part)
        print(f"{n} images decoded (part {part.index} of {part.count}). Go on with: {begun.run.command}")
    return 0


def fit(args: Sequence[str]) -> int:
    """`oodream fit-decoder`."""
    chosen = parse(FitOptions, "oodream fit-decoder", args)

    from ..core.device import device_of
    from ..data.captions import captioned_folder
    from ..synthesis.fit_decoder import fit_decoder
    from ..synthesis.pipeline import INDEX

    device = device_of(chosen.options.device)
    with writing_to(chosen.out, last=INDEX, again=True) as out:
        images, captions, weights = captioned_folder(chosen.images, chosen.options.resolution)
        print(f"{len(images)} images, {len(set(captions))} captions", flush=True)
        summary = fit_decoder(images, captions, weights, out, chosen.options, device)
    print(json.dumps(summary, indent=2))
    return 0
