"""The verb `sample`: vectors where the classes are unlikely (or, for inliers, likely)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..config import SampleConfig
from ..core.faults import blamed, require
from ..core.registry import make
from ..core.types import ClassBook, Features, SampledVectors, Sampler
from ..core.words import Lookup, WordSampler

__all__ = ["bare_sampler", "check_sampler_parts", "check_vectors", "make_sampler", "sample"]

UNIT = 1e-4  # how far a vector's norm may be from 1


def bare_sampler(config: SampleConfig) -> Sampler:
    """The sampler of `config`, without the words that it may need.

    Raises ValueError for an unknown sampler or option, and for one that lacks what every sampler has.
    """
    sampler: Sampler = make("samplers", config.sampler, **config.options)
    with blamed(_name(config), sampler):
        check_sampler_parts(sampler)
    return sampler


def make_sampler(config: SampleConfig, lookup: Lookup | None = None) -> Sampler:
    """The sampler of `config`, with words from `lookup` if it needs some (see `WordSampler`).

    Raises ValueError where `bare_sampler` does, and for words that are needed and cannot be had.
    """
    sampler = bare_sampler(config)
    if not isinstance(sampler, WordSampler):
        return sampler
    if lookup is None:
        raise ValueError(f"The sampler {config.sampler!r} needs words: pass lookup=decoder.words.")
    with blamed(_name(config), sampler):
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
    for features of another width than the class vectors, and for a class that is too small for the sampler;
    and, with the sampler's name, for whatever else it raises, and for vectors that `check_vectors` refuses.
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
    with blamed(_name(config), sampler):
        vectors = sampler(features, config.per_class, seed, book.space)
        check_vectors(vectors, features, config.per_class, sampler.kind, book.space)
    return vectors


def check_sampler_parts(sampler: Sampler) -> None:
    """Raises BrokenRule where a sampler's kind is none, or a method is missing."""
    kind = getattr(sampler, "kind", None)
    require(kind in ("outlier", "inlier"), "Its kind is 'outlier' or 'inlier', not", kind)
    for name, call in (("check", "check(y_N, names)"), ("__call__", "(features, per_class, seed, space)")):
        method = callable(getattr(sampler, name, None))
        require(method, f"A sampler has a method {name}, which is called as {call}.")


def check_vectors(vectors: SampledVectors, features: Features, per_class: int, kind: str, space: str) -> None:
    """Raises BrokenRule for vectors that are not what a sampler of this kind gives for these arguments."""
    require(isinstance(vectors, SampledVectors), f"It returns SampledVectors, not {type(vectors).__name__}.")
    classes = features.y_N.unique().cpu()
    count, width = per_class * len(classes), features.z_ND.shape[1]
    require(vectors.kind == kind, "The vectors' kind is the sampler's.")
    require(vectors.space == space, "The vectors' space is the one that the sampler is given.")
    for name in ("z_MD", "y_M", "anchor_M", "knn_M", "seed_M"):
        values = getattr(vectors, name)
        on_cpu = isinstance(values, Tensor) and values.device.type == "cpu"
        require(on_cpu, f"{name} is a tensor on the CPU, not", values)
    z_MD = vectors.z_MD
    require(
        tuple(z_MD.shape) == (count, width) and z_MD.dtype == torch.float32,
        f"z_MD is float32 of shape {(count, width)} for {per_class} vectors of each of {len(classes)} "
        f"classes; it is {z_MD.dtype} of shape {tuple(z_MD.shape)}.",
    )
    require(
        torch.equal(vectors.y_M, classes.repeat(per_class)),
        "Row m is of class m mod C: the classes take turns (y_M).",
    )
    require(bool(z_MD.isfinite().all()), "The vectors are finite.")
    far_off_M = (z_MD.norm(dim=1) - 1).abs() >= UNIT
    require(not far_off_M.any(), f"The vectors have unit norm; {int(far_off_M.sum())} of {count} have not.")
    for name in ("anchor_M", "knn_M", "seed_M"):
        one_each = tuple(getattr(vectors, name).shape) == (count,)
        require(one_each, f"{name} has a value for each of the {count} vectors.")
    _check_rows(vectors, features)


def _check_rows(vectors: SampledVectors, features: Features) -> None:
    anchor_M, seed_M = vectors.anchor_M, vectors.seed_M
    whole = anchor_M.dtype == seed_M.dtype == torch.int64
    require(whole, f"anchor_M and seed_M are int64, not {anchor_M.dtype} and {seed_M.dtype}.")
    inside = not len(anchor_M) or 0 <= int(anchor_M.min()) <= int(anchor_M.max()) < len(features.y_N)
    require(inside, f"anchor_M holds rows of the features, of which there are {len(features.y_N)}.")
    own = torch.equal(features.y_N.cpu()[anchor_M], vectors.y_M)
    require(own, "An anchor is a feature of its vector's class.")
    require(bool(vectors.knn_M.isfinite().all()), "knn_M holds finite distances.")
    require(len(seed_M.unique()) == len(seed_M), "Every vector has a seed of its own (seed_M).")
    if isinstance(name_M := vectors.name_M, Tensor):
        numbers = name_M.dtype == torch.int64 and name_M.shape == seed_M.shape and not (name_M < 0).any()
        require(numbers, "name_M, where there is one, holds the number of a word for each vector, int64.")


def _name(config: SampleConfig) -> str:
    return f"The sampler {config.sampler!r}"
