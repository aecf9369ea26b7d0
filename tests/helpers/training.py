"""Small image sets, sources, steps and networks for tests of training."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from oodream.config import Optimisation, RegularizeConfig
from oodream.core.registry import make
from oodream.core.seeding import generator, seeded
from oodream.core.types import Loss, Output, Sizes, Step
from oodream.data.images import Images, from_array
from oodream.models.factory import backbone
from oodream.testing.loss import random_step
from oodream.training.sources import KnownPairs, LatentSet, Source

CPU = torch.device("cpu")
SIZES = Sizes(features=6, classes=3, text=5, teacher=7, latent=(4, 8, 8))
UNMOVED = Optimisation(batch=16, crop_padding=0, flip=False, precision="fp32")
VARIED = RegularizeConfig(outlier_aug_prob=1.0, ratio=1.0, inlier_weight=0.25, grayscale_prob=0.5)


def pixels(n: int, size: int = 16) -> torch.Tensor:
    """Noise, uint8 (n, 3, size, size)."""
    return torch.randint(0, 256, (n, 3, size, size), generator=generator(n, "pixels"), dtype=torch.uint8)


def images(n: int, brightness: int = 0, size: int = 16, classes: int = 3) -> Images:
    """Dim noise, brighter by `brightness`; labels take turns."""
    noise = torch.randint(0, 60, (n, 3, size, size), generator=generator(n, "images"), dtype=torch.uint8)
    labels = torch.arange(n) % classes
    return from_array("x", noise + brightness, labels, [f"c{i}" for i in range(classes)])


def known(data: Images, **other) -> Source:
    return Source(role="known", data=data, **other)


def outliers(data: Images, **other) -> Source:
    return Source(role="outlier", data=data, **other)


def network(classes: int = 3):
    with seeded(0, "test"):
        return backbone("resnet8", classes)


def step(B: int = 12, O: int = 8, **other) -> Step:
    """A random step with everything in it, outputs of `SIZES`; `other` replaces parts."""
    return Step(**{**vars(random_step(SIZES, B, O)), **other})


def built(name: str, **options) -> Loss:
    """A loss, built for `SIZES`."""
    with seeded(0, "loss"):
        loss = make("losses", name, **options)
        loss.build(SIZES)
    return loss


def output(logits: torch.Tensor, z: torch.Tensor | None = None) -> Output:
    """An output whose features are the logits, where none are given."""
    return Output(logits_BC=logits, z_BF=logits if z is None else z)


def latent_sources(n: int = 24, m: int = 6, **other) -> list[Source]:
    """Known images of 32 pixels with their latents, and outliers' latents; `other` goes to the outliers."""
    g = generator(3, "latents")
    data = images(n, size=32)
    latents, ood = torch.randn(n, 4, 8, 8, generator=g).half(), torch.randn(m, 4, 8, 8, generator=g).half()
    return [
        known(data, vectors=F.normalize(torch.randn(3, 5, generator=g), dim=1)),
        Source(role="known", data=LatentSet(labels=data.labels, read=lambda rows: latents[rows]), ratio=0.5),
        Source(
            role="outlier",
            data=LatentSet(labels=torch.arange(m) % 3, read=lambda rows: ood[rows]),
            **{"ratio": 0.5, "vectors": F.normalize(torch.randn(m, 5, generator=g), dim=1), **other},
        ),
    ]


def latent_pairs(sources: list[Source]) -> KnownPairs:
    """The known images and latents of `latent_sources`, with four recolored images."""
    g = generator(4, "recolored")
    recolored = torch.randint(0, 256, (4, 3, 32, 32), generator=g, dtype=torch.uint8)
    return KnownPairs(
        images=sources[0].data,
        latents=sources[1].data,
        recolored_P3HW=recolored,
        recolored_latents_PFHW=torch.randn(4, 4, 8, 8, generator=g).half(),
    )


def gaussians(rho: float, n: int, d: int = 2) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Pairs with correlation rho in each of d dimensions, and their mutual information in nats."""
    g = torch.Generator().manual_seed(1)
    x, e = torch.randn(2, n, d, generator=g)
    return x, rho * x + math.sqrt(1 - rho**2) * e, -0.5 * d * math.log(1 - rho**2)
