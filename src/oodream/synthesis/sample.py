"""The verb `sample`: vectors where the classes are unlikely (or, for inliers, likely)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..config import SampleConfig
from ..core.registry import make
from ..core.types import ClassBook, Features, SampledVectors, Sampler
from ..core.words import Lookup, WordSampler

__all__ = ["make_sampler", "sample"]


def make_sampler(config: SampleConfig, lookup: Lookup | None = None) -> Sampler:
    """The sampler of `config`, with words from `lookup` if it needs some (see `WordSampler`).

    Raises ValueError for an unknown sampler or option, and for words that are needed and cannot be had.
    """
    sampler: Sampler = make("samplers", config.sampler, **config.options)
    if not isinstance(sampler, WordSampler):
        return sampler
    if lookup is None:
        raise ValueError(f"The sampler {config.sampler!r} needs words: pass lookup=decoder.words.")
    return sampler.with_words(lookup)


def sample(
    features: Features,
    book: ClassBook,
    config: SampleConfig,
    seed: int,
    lookup: Lookup | None = None,
    device: torch.device | str = "cpu",
) -> SampledVectors:
    """`config.per_class` vectors (M, D) for every class, in the space of the book's class vectors.

    Where `device` is a CUDA device, samplers whose class says `on_device` work there; all others on the CPU.
    `lookup` is where a sampler that needs words takes them from. Raises ValueError where `make_sampler` does,
    for features of another width than the class vectors, and for a class that is too small for the sampler.
    """
    if features.z_ND.shape[1] != book.tokens_CD.shape[1]:
        widths = features.z_ND.shape[1], book.tokens_CD.shape[1]
        raise ValueError(
            f"The features have width {widths[0]} and the class vectors {widths[1]}: they are not of one "
            f"space."
        )
    sampler = make_sampler(config, lookup)
    if torch.device(device).type == "cuda" and getattr(sampler, "on_device", False):
        features = replace(features, z_ND=features.z_ND.to(device))
    return sampler(features, config.per_class, seed, book.space)
