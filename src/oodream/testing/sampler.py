"""The rules that every sampler keeps, as a check for authors of new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.faults import require
from ..core.registry import make
from ..core.seeding import generator
from ..core.types import Features, Sampler
from ..core.words import Words, WordSampler
from ..synthesis.sample import check_sampler_parts, check_vectors
from ._rules import run_rules, untouched

__all__ = ["check_sampler", "random_features"]

SIZES, WIDTH, PER_CLASS, SPACE = (40, 30, 50), 16, 7, "space of the check"
LEAST_TYPICAL = 0.1  # share of a class's features that inliers are not less typical than


def check_sampler(sampler: str | Callable[..., Sampler], **options: Any) -> None:
    """Checks that a sampler keeps the rules; AssertionError says which one it breaks.

    `sampler` is a registered name, `package.module:Class` or the class itself, and `options` are its own,
    chosen for classes of 30 to 50 images. The rules:

    - Its `kind` is "outlier" or "inlier", which is also that of the vectors; their space is the one given.
    - There are `per_class` finite unit vectors, float32, for each of C classes; row m is of class m mod C.
    - Outliers are less like the mean of their class than its features are, and inliers as much as these.
    - The anchors are rows of the features, each of its vector's class; all seeds differ.
    - The same seed gives the same vectors, another seed others. Global random numbers and what it is given
      stay as they are.
    - A class's vectors do not depend on where its images stand among those of other classes.
    - A sampler that needs words is given made-up ones (see `WordSampler`).
    - `check` passes these classes. For a class of one image it raises ValueError with the class's name, or
      the sampler works.
    """

    def made() -> Sampler:
        result: Sampler = (
            make("samplers", sampler, **options) if isinstance(sampler, str) else sampler(**options)
        )
        return result.with_words(random_words) if isinstance(result, WordSampler) else result

    rules = (_check_vectors, _check_kind, _check_seeds, _check_independence, _check_small_classes)
    run_rules(sampler, [partial(rule, made) for rule in rules])


def random_features(sizes: tuple[int, ...] = SIZES) -> Features:
    """Unit features (N, D) of classes of these sizes, each around a direction of its own, in blocks."""
    g = generator(0, "check_sampler")
    y_N = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    centres = normalize(torch.randn(len(sizes), WIDTH, generator=g), dim=1)
    z_ND = normalize(centres[y_N] + 0.5 * torch.randn(len(y_N), WIDTH, generator=g) / math.sqrt(WIDTH), dim=1)
    # Rows of the features are not rows of the images: anchors are the former.
    return Features(z_ND=z_ND, y_N=y_N, index_N=torch.arange(len(y_N)).flip(0) + 5, encoder="check")


def random_words(names: Sequence[str], width: int = WIDTH) -> Words:
    """Words with random unit vectors (V, width): of these names, or of some."""
    names = tuple(names) or ("anchor", "bell", "cloud", "drum", "egg")
    z_VD = torch.randn(len(names), width, generator=generator(0, "check_sampler", *names))
    return Words(names=names, z_VD=normalize(z_VD, dim=1))


def _check_vectors(made: Callable[[], Sampler]) -> None:
    sampler, features = made(), random_features()
    check_sampler_parts(sampler)
    sampler.check(features.y_N, [f"class {c}" for c in range(len(SIZES))])
    with untouched(features.z_ND, features.y_N, features.index_N):
        vectors = sampler(features, PER_CLASS, 3, SPACE)
    check_vectors(vectors, features, PER_CLASS, sampler.kind, SPACE)


def _check_kind(made: Callable[[], Sampler]) -> None:
    """The mean cosine of vectors to the means of their classes, beside the features' cosines."""
    sampler, features = made(), random_features()
    vectors = sampler(features, PER_CLASS, 3, SPACE)
    mean_CD = torch.stack([features.z_ND[features.y_N == c].mean(0) for c in range(len(SIZES))])
    mean_CD = normalize(mean_CD, dim=1)
    own_N = (features.z_ND * mean_CD[features.y_N]).sum(1)
    given = float((vectors.z_MD * mean_CD[vectors.y_M]).sum(1).mean())
    if sampler.kind == "outlier":
        require(
            given < float(own_N.mean()),
            "Outliers lie out of their classes, on average at a lower cosine to the mean of a class than its "
            f"features; here at {given:.2f}, and the features at {own_N.mean():.2f}. A sampler of vectors "
            'that lie within has the kind "inlier".',
        )
        return
    least = float(own_N.quantile(LEAST_TYPICAL))
    require(
        given >= least,
        "Inliers lie within their classes, on average at a cosine to the mean of a class that "
        f"{1 - LEAST_TYPICAL:.0%} of its features reach, {least:.2f}; here at {given:.2f}. A sampler of "
        'vectors that lie out of them has the kind "outlier".',
    )


def _check_seeds(made: Callable[[], Sampler]) -> None:
    features = random_features()
    first, again, other = (made()(features, PER_CLASS, seed, SPACE) for seed in (3, 3, 4))
    for name in ("z_MD", "anchor_M", "knn_M", "seed_M"):
        same = torch.equal(getattr(first, name), getattr(again, name))
        require(same, f"The same seed gives the same {name}.")
    require(not torch.equal(first.z_MD, other.z_MD), "Another seed gives other vectors.")
    require(not torch.equal(first.seed_M, other.seed_M), "Another seed gives the images other seeds.")


def _check_independence(made: Callable[[], Sampler]) -> None:
    features = random_features()
    vectors = made()(features, PER_CLASS, 3, SPACE)
    order = _interleaved(features.y_N)
    moved = Features(
        z_ND=features.z_ND[order], y_N=features.y_N[order], index_N=features.index_N[order], encoder="check"
    )
    again = made()(moved, PER_CLASS, 3, SPACE)
    require(
        torch.allclose(vectors.z_MD, again.z_MD, atol=1e-5),
        "A class's vectors do not depend on where its images stand among those of other classes.",
    )
    require(
        torch.equal(features.index_N[vectors.anchor_M], moved.index_N[again.anchor_M]),
        "A vector's anchor is the same image wherever that stands among those of other classes.",
    )


def _interleaved(y_N: Tensor) -> Tensor:
    """An order in which the classes take turns while each class's images keep theirs."""
    turn_N = torch.cat([torch.arange(n) for n in y_N.bincount().tolist()])
    return (turn_N * len(y_N.unique()) + y_N).argsort()


def _check_small_classes(made: Callable[[], Sampler]) -> None:
    features, sampler = random_features((40, 1, 50)), made()
    try:
        sampler.check(features.y_N, ["a", "the lonely class", "c"])
    except ValueError as error:
        named = "the lonely class" in str(error)
        require(named, f"check names the class that is too small, as its message does not: {error}")
    else:
        vectors = sampler(features, PER_CLASS, 3, SPACE)
        check_vectors(vectors, features, PER_CLASS, sampler.kind, SPACE)
