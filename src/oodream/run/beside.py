"""What a configuration has beside known images in the training of the regularized classifier."""

from __future__ import annotations

from typing import Literal

from ..config import Config
from ..synthesis.sample import bare_sampler
from ..training.sources import Kind
from ..training.train import make_loss

__all__ = ["Beside", "beside_of", "kind_of"]

Beside = Literal["imagined", "known", "real", ""]
"""what is imagined; known or real images in its place; or nothing"""


def beside_of(config: Config) -> Beside:
    """What the options ask for; nothing where the loss takes no outliers, or the ratio is 0."""
    r = config.regularize
    taken = kind_of(config) == "inlier" or make_loss(r.loss, r.loss_options).outliers
    return r.outliers if taken and r.ratio > 0 else ""


def kind_of(config: Config) -> Kind:
    """What the sampler gives, "outlier" or "inlier", and what stands in its place is. Real images of other
    things are outliers.
    """
    if config.regularize.outliers == "real":
        return "outlier"
    given: Kind = bare_sampler(config.sample).kind  # type: ignore[assignment]
    return given
