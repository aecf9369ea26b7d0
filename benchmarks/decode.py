"""Decoding vectors with the embedded Stable Diffusion, against the published recipe on the same weights in
the same run.

The recipe: PLMS with 50 steps in float32; batches of 4 that share one vector and one prompt; the prompt, and
the empty one, encoded for every batch. oodream: DPM-Solver++ with as many steps as a run, a vector of its own
for every image, 16 of them together; the ways to draw faster of docs/drawing.md; and OAL's outliers, latents
of 4 steps, which no VAE decodes. Ways that the machine cannot run are left out.

python benchmarks/decode.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from _bench import Row, Setting, alone, multiplied, turns
from _recipe import BATCH, GUIDANCE, STEPS, cost, recipe, vectors

from oodream.data.builtin import FASHION_ID
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError

__all__ = ["LINES"]

LATENTS = "OAL's latents of 4 steps"
INTERVAL = {"guided_from": 0.3, "guided_until": 0.8}
WAYS: dict[str, dict[str, Any]] = {
    "embedded decoder, 32 px": {},
    LATENTS: {"steps": 4},
    "guidance from 0.3 to 0.8": INTERVAL,
    "OpenVINO": {"engine": "openvino"},
    "OpenVINO, guidance from 0.3 to 0.8": {"engine": "openvino", **INTERVAL},
    "float32": {"precision": "fp32"},
    "float32, OpenVINO": {"precision": "fp32", "engine": "openvino"},
}


@torch.no_grad()
def drawing(setting: Setting) -> Iterator[Row]:
    n, few, rounds = setting.pick((64, 4 * BATCH, 3), (64, 4 * BATCH, 3), (BATCH, BATCH, 1))
    theirs = StableDecoder(
        names=FASHION_ID, scheduler="pndm", steps=STEPS, guidance=GUIDANCE, precision="fp32"
    )
    price, (z, y), rows = cost(theirs), vectors(theirs, FASHION_ID, n), torch.arange(n)
    decoders, programs = {}, {"recipe": partial(recipe, theirs, z[:few], y[:few])}
    for name, options in WAYS.items():
        with suppress(DecoderError):
            decoder = decoders[name] = StableDecoder(names=FASHION_ID, **options)
            programs[name] = partial(decoder.latents if name == LATENTS else decoder, z, y, rows)
            programs[name]()  # the first use converts networks and takes memory
    times = turns(programs, rounds, torch.device("cpu"))
    for name, decoder in decoders.items():
        yield multiplied(
            name,
            n,
            times[name],
            "the published recipe, same weights",
            times["recipe"] * n / few,
            decoder.evaluations * price.unet + (name != LATENTS) * price.vae,
            f"{decoder.evaluations:g} U-Net evaluations for each, the recipe {2 * (STEPS + 1)}",
        )


LINES = {"drawing": drawing}

if __name__ == "__main__":
    alone(LINES)
