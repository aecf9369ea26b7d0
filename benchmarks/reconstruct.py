"""Known images through the embedded decoder's autoencoder, beside the autoencoder alone on float32 tensors.

python benchmarks/reconstruct.py
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from _bench import Row, Setting, alone, multiplied, operations, turns

from oodream.data.builtin import FASHION_ID, fashion
from oodream.synthesis.decoders.stable import StableDecoder

__all__ = ["LINES"]


@torch.no_grad()
def reconstruction(setting: Setting) -> Iterator[Row]:
    n, rounds = setting.pick((128, 3), (128, 3), (16, 1))
    decoder = StableDecoder(names=FASHION_ID)
    images = fashion("test", FASHION_ID, size=decoder.resolution).batch(range(n))
    vae = decoder.pipeline.vae

    def autoencoder() -> None:
        for part in (images.float() / 127.5 - 1).split(decoder.tile):
            vae.decode(vae.encode(part).latent_dist.mean)

    times = turns(
        {"ours": lambda: decoder.reconstruct(images), "vae": autoencoder}, rounds, torch.device("cpu")
    )
    flop = operations(lambda: decoder.reconstruct(images[:1])) / decoder.tile
    yield multiplied(
        "known images through the autoencoder",
        n,
        times["ours"],
        "the autoencoder alone, float32",
        times["vae"],
        flop,
    )


LINES = {"reconstruction": reconstruction}

if __name__ == "__main__":
    alone(LINES)
