"""The verb `sample`: vectors where the classes are unlikely (or, for inliers, likely)."""

from __future__ import annotations

from ..config import SampleConfig
from ..core.registry import make
from ..core.types import ClassBook, Features, SampledVectors


def sample(features: Features, book: ClassBook, config: SampleConfig, seed: int) -> SampledVectors:
    """`per_class` vectors for every class, in the space of the book's class vectors."""
    if features.z_ND.shape[1] != book.tokens_CD.shape[1]:
        widths = features.z_ND.shape[1], book.tokens_CD.shape[1]
        raise ValueError(
            f"The features have width {widths[0]} and the class vectors {widths[1]}: they are not of one space."
        )
    return make("samplers", config.sampler, **config.options)(features, config.per_class, seed, book.space)
