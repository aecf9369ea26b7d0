"""Decoding vectors with the embedded Stable Diffusion, against the published recipe on the same weights in
the same run.

The recipe: PLMS with 50 steps; batches of 4 that share one vector and one prompt; the prompt, and the empty
one, encoded for every batch. oodream: DPM-Solver++ with 10 steps, a vector of its own for every image, 16 of
them together; and OAL's outliers, latents of 4 steps, which no VAE decodes.

python benchmarks/decode.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from oodream.core.seeding import generator
from oodream.data.builtin import FASHION_ID
from oodream.synthesis.decoders.stable import StableDecoder

N, RECIPE_BATCH = 64, 4


def vectors(decoder: StableDecoder) -> tuple[Tensor, Tensor]:
    """N unit vectors at a cosine of about 0.5 to their classes', and the classes."""
    y = torch.arange(N) % len(FASHION_ID)
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


def clock(decoder: StableDecoder, work: Callable[[], object]) -> tuple[float, float]:
    """Images a second, and U-Net evaluations for each image (guidance takes two)."""
    evaluated = 0

    def count(module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        nonlocal evaluated
        evaluated += len(args[0])

    handle = decoder.pipeline.unet.register_forward_pre_hook(count, with_kwargs=True)
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    handle.remove()
    return N / seconds, evaluated / N


@torch.no_grad()
def main() -> None:
    ours = StableDecoder(names=FASHION_ID)
    oal = StableDecoder(names=FASHION_ID, steps=4)
    theirs = StableDecoder(names=FASHION_ID, scheduler="pndm", steps=50, guidance=7.5)
    z, y = vectors(ours)
    ours(z[:16], y[:16], torch.arange(16))
    rate, evaluations = clock(ours, lambda: ours(z, y, torch.arange(N)))
    oal_rate, oal_evaluations = clock(oal, lambda: oal.latents(z, y, torch.arange(N)))
    their_rate, their_evaluations = clock(theirs, lambda: recipe(theirs, z, y))
    print(f"{N} images, {torch.get_num_threads()} threads")
    print(f"oodream: {rate:.1f} images a second, {evaluations:.0f} U-Net evaluations for each, {N} vectors")
    print(
        f"latents: {oal_rate:.1f} a second, {oal_evaluations:.0f} evaluations: "
        f"{oal_rate / rate:.1f} times the images' rate"
    )
    print(
        f"recipe: {their_rate:.1f} images a second, {their_evaluations:.0f} evaluations, "
        f"{N // RECIPE_BATCH} vectors"
    )
    print(f"oodream is {rate / their_rate:.1f} times as fast")


if __name__ == "__main__":
    main()
