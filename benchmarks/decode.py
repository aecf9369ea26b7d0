"""Decoding vectors with the embedded Stable Diffusion, against the published recipe on the same weights in
the same run.

The recipe: PLMS with 50 steps; batches of 4 that share one vector and one prompt; the prompt, and the empty
one, encoded for every batch. oodream: DPM-Solver++ with 10 steps, a vector of its own for every image, 16 of
them together; and OAL's outliers, latents of 4 steps, which no VAE decodes.

python benchmarks/decode.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from _bench import Row, Setting, alone, multiplied, operations, turns
from torch import Tensor
from torch.nn.functional import normalize

from oodream.core.seeding import generator
from oodream.data.builtin import FASHION_ID
from oodream.synthesis.decoders.stable import StableDecoder

__all__ = ["LINES"]

N, RECIPE_BATCH, CPU = 64, 4, torch.device("cpu")


def vectors(decoder: StableDecoder, n: int) -> tuple[Tensor, Tensor]:
    """n unit vectors at a cosine of about 0.5 to their classes', and the classes."""
    y = torch.arange(n) % len(FASHION_ID)
    t = normalize(decoder.book.tokens_CD[y], dim=1)
    noise = torch.randn(t.shape, generator=torch.Generator().manual_seed(0)) * (3 / t.shape[1]) ** 0.5
    return normalize(t + noise, dim=1), y


def recipe(decoder: StableDecoder, z_BD: Tensor, y_B: Tensor) -> None:
    """The first vector of every four draws four images."""
    for start in range(0, len(z_BD), RECIPE_BATCH):
        rows = torch.tensor([start])
        prompt = decoder.text.splice(z_BD[rows], y_B[rows]).expand(RECIPE_BATCH)
        uncond = decoder.text.prompt([""]).expand(RECIPE_BATCH)
        noise = torch.stack(
            [torch.randn((4, 8, 8), generator=generator(start + i, "image")) for i in range(RECIPE_BATCH)]
        )
        decoder.pipeline(
            prompt_embeds=prompt.states_BLD,
            negative_prompt_embeds=uncond.states_BLD,
            latents=noise,
            num_inference_steps=50,
            guidance_scale=7.5,
        )


def evaluated(decoder: StableDecoder, work: Callable[[], object]) -> int:
    """How often `work` evaluates the U-Net for one picture (guidance takes two for a step)."""
    rows = 0

    def count(module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        nonlocal rows
        rows += len(args[0])

    handle = decoder.pipeline.unet.register_forward_pre_hook(count, with_kwargs=True)
    work()
    handle.remove()
    return rows


@torch.no_grad()
def drawing(setting: Setting) -> Iterator[Row]:
    n, rounds = setting.pick((N, 3), (N, 3), (RECIPE_BATCH, 1))
    ours = StableDecoder(names=FASHION_ID)
    oal = StableDecoder(names=FASHION_ID, steps=4)
    theirs = StableDecoder(names=FASHION_ID, scheduler="pndm", steps=50, guidance=7.5)
    z, y = vectors(ours, n)
    rows = torch.arange(n)
    programs = {
        "ours": lambda: ours(z, y, rows),
        "oal": lambda: oal.latents(z, y, rows),
        "recipe": lambda: recipe(theirs, z, y),
    }
    one = slice(0, 1)
    counts = {
        "ours": evaluated(ours, lambda: ours(z[one], y[one], rows[one])) // ours.tile,
        "oal": evaluated(oal, lambda: oal.latents(z[one], y[one], rows[one])) // oal.tile,
        "recipe": evaluated(theirs, lambda: recipe(theirs, z[one], y[one])) // RECIPE_BATCH,
    }
    times = turns(programs, rounds, CPU)
    tile = ours.tile
    yield multiplied(
        f"embedded decoder, {ours.resolution} px",
        n,
        times["ours"],
        "the published recipe, same weights",
        times["recipe"],
        operations(lambda: ours(z[one], y[one], rows[one])) / tile,
        f"{counts['ours']} U-Net evaluations for each, the recipe {counts['recipe']}",
    )
    yield multiplied(
        "OAL's latents",
        n,
        times["oal"],
        "the images",
        times["ours"],
        operations(lambda: oal.latents(z[one], y[one], rows[one])) / tile,
        f"{counts['oal']} U-Net evaluations for each",
    )


LINES = {"drawing": drawing}

if __name__ == "__main__":
    alone(LINES)
