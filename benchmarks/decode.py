"""Drawing with the embedded Stable Diffusion, and the published recipe on the same weights in the same run.

The recipe: PLMS with 50 steps; batches of 4 that share one vector and one prompt; the prompt, and the empty
one, encoded for every batch; float32. oodream: DPM-Solver++ with 10 steps, a vector of its own for every
image, 16 of them together; and OAL's outliers, latents of 4 steps, which no VAE decodes. All lines take
turns, several times; the medians are of the processor's seconds, which other programs change little.
"Floor" is what a program would take that multiplies as fast as the machine's largest matrix product does, in
the line's own type.

python benchmarks/decode.py
python benchmarks/decode.py --rounds 1 --images 16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from _recipe import BATCH, GUIDANCE, STEPS, cost, recipe, vectors

from oodream.core.device import multiplies_bf16
from oodream.data.builtin import FASHION_ID
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Line:
    """One way to draw: `work` draws n images, multiplying in `dtype`."""

    name: str
    decoder: StableDecoder
    work: Callable[[], object]
    n: int
    pictures: bool = True
    dtype: torch.dtype = torch.float32


INTERVAL = {"guided_from": 0.3, "guided_until": 0.8}
WAYS: dict[str, dict[str, Any]] = {
    "oodream": {},
    "oodream, latents of 4 steps": {"steps": 4},
    "guidance from 0.3 to 0.8": INTERVAL,
    "openvino": {"engine": "openvino"},
    "openvino, guidance from 0.3 to 0.8": {"engine": "openvino", **INTERVAL},
    "float32": {"precision": "fp32"},
    "float32, guidance from 0.3 to 0.8": {"precision": "fp32", **INTERVAL},
    "float32, openvino": {"precision": "fp32", "engine": "openvino"},
    "float32, openvino, guidance from 0.3 to 0.8": {"precision": "fp32", "engine": "openvino", **INTERVAL},
}


def lines(n: int) -> list[Line]:
    """The recipe first, then the ways of oodream; those that the machine cannot run are left out."""
    theirs = StableDecoder(
        names=FASHION_ID, scheduler="pndm", steps=STEPS, guidance=GUIDANCE, precision="fp32"
    )
    few = BATCH * max(1, n // 16)
    z, y = vectors(theirs, FASHION_ID, n)
    made = [Line("published recipe", theirs, lambda: recipe(theirs, z[:few], y[:few]), few)]
    for name, options in WAYS.items():
        try:
            decoder = StableDecoder(names=FASHION_ID, **options)
        except DecoderError as error:
            print(f"{name}: {error}")
            continue
        pictures = "latents" not in name

        def work(draw: Callable[..., object] = decoder if pictures else decoder.latents) -> None:
            draw(z, y, torch.arange(n))

        dtype = torch.float32 if "float32" in name or not multiplies_bf16(CPU) else torch.bfloat16
        made.append(Line(name, decoder, work, n, pictures, dtype))
    return made


def clock(work: Callable[[], object]) -> float:
    """The processor's seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def speed(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    n = 2048
    a = torch.randn(n, n).to(dtype)
    a @ a
    return 2 * n**3 / min(clock(lambda: a @ a) for _ in range(5))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64)
    args = parser.parse_args()
    measured = lines(args.images)
    price = cost(measured[0].decoder)
    for line in measured[1:]:
        line.work()  # the first use converts networks and gets memory
    seconds: dict[str, list[float]] = {line.name: [] for line in measured}
    for _ in range(args.rounds):
        for line in measured:
            seconds[line.name].append(clock(line.work) / line.n)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["published recipe"], values, strict=True))
        for name, values in seconds.items()
    }
    peaks = {dtype: speed(dtype) for dtype in (torch.float32, torch.bfloat16)}
    threads = torch.get_num_threads()
    print(f"{args.images} images, {args.rounds} rounds, {threads} threads; a processor's seconds")
    print(f"matrix product: {', '.join(f'{p / 1e9:.0f} GFLOP/s {str(d)[6:]}' for d, p in peaks.items())}")
    for line in measured:
        took, n = statistics.median(seconds[line.name]), line.decoder.evaluations
        floor = (n * price.unet + line.pictures * price.vae) / peaks[line.dtype]
        print(
            f"| {line.name} | {n} | {1000 * took:.1f} ms | x{ratios[line.name]:.1f} | "
            f"{1000 * floor:.1f} ms, {100 * floor / took:.0f} % |"
        )


if __name__ == "__main__":
    main()
