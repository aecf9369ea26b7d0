"""The options of `oodream evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..core.options import Option, Range, Section
from .types import CountOrNone, Fraction, Seed

__all__ = ["MeasureConfig"]


@dataclass(frozen=True, kw_only=True)
class MeasureConfig(Section):
    """How a network is measured on a protocol."""

    detectors: tuple[str, ...] = ("energy", "msp", "max_logit", "knn", "mahalanobis")
    """detectors (see `oodream list`); "all": every one that the network can serve"""
    detector_options: dict[str, Option] = field(default_factory=dict)
    """their options: of any as `ash.percentile=0.8`"""
    size: Annotated[int, Range(0, 4096)] = 0
    """width and height of all images, in pixels; 0: the classifier's, else the protocol's"""
    crop: Fraction = 0.0
    """share of a picture's shorter side that is kept; 0: all of it for a classifier's folder, else the
    protocol's"""
    mean: tuple[float, ...] = ()
    """what is taken from pixels in [0, 1], one value or three; none: the network's own, for a file 0"""
    std: tuple[float, ...] = ()
    """what they are divided by then; none: the network's own, for a file 1"""
    fit: CountOrNone = 0
    """at most this many training images, drawn by the seed, to fit detectors to; 0: all"""
    max_images: CountOrNone = 0
    """at most this many images of every set, drawn by the seed; 0: all"""
    tune: str = ""
    """choose the detectors' options first: "val" on the protocol's validation sets, or a folder of unknown
    images of no test set, as a run's imagined outliers (RUN/images/imagined)"""
    full_spectrum: bool = False
    """measure a second time with known images that look otherwise (the protocol's group `shift`) among the
    known ones"""
    outliers: str = ""
    """what the detectors learn from that use outliers: a run, whose outliers are shown as its training shows
    them, and known images alike, or a folder of unknown images of no test set, taken as they are"""
    seed: Seed = 0
    """of everything random"""
    resamples: CountOrNone = 500
    """bootstrap resamples behind every interval"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
