"""The verb `sample`: vectors where the classes are unlikely (or, for inliers, likely)."""

from __future__ import annotations

from ..config import SampleConfig
from ..core.registry import make
from ..core.types import ClassBook, Features, SampledVectors

__all__ = ["sample"]


def sample(features: Features, book: ClassBook, config: SampleConfig, seed: int) -> SampledVectors:
    """`config.per_class` vectors (M, D) for every class, in the space of the book's class vectors.

    Raises ValueError for features of another width than the class vectors, for an option that the sampler
    does not take, and for a class that is too small for it.
    """
    if features.z_ND.shape[1] != book.tokens_CD.shape[1]:
        widths = features.z_ND.shape[1], book.tokens_CD.shape[1]
        raise ValueError(
            f"The features have width {widths[0]} and the class vectors {widths[1]}: they are not of one "
            f"space."
        )
    vectors: SampledVectors = make("samplers", config.sampler, **config.options)(
        features, config.per_class, seed, book.space
    )
    return vectors
