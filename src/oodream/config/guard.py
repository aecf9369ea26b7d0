"""The options of `oodream guard`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..core.options import Option, Range, Section
from .types import Count, CountOrNone, Fraction, Seed

__all__ = ["NetworkConfig"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Section):
    """How a guard is made for a network that is trained already."""

    size: Annotated[int, Range(0, 4096)] = 0
    """width and height of the network's images, in pixels; 0: its own, where it says so"""
    crop: Fraction = 0.0
    """share of a picture's shorter side that is kept; 0: the network's own, where it says so, else all of
    it
    """
    mean: tuple[float, ...] = ()
    """what is taken from pixels in [0, 1], one value or three; none: the network's own"""
    std: tuple[float, ...] = ()
    """what they are divided by then"""
    detectors: tuple[str, ...] = (
        "energy", "msp", "max_logit", "gen", "react", "scale", "vim", "knn", "nnguide", "fdbd", "nci",
        "mahalanobis", "relative_mahalanobis", "energy_probe",
    )  # fmt: skip
    """detectors to choose from (see `oodream list`), without those that the network cannot serve, or that
    want labels or outliers where there are none
    """
    detector_options: dict[str, Option] = field(default_factory=dict)
    """options of theirs that are not chosen: of any as `knn.k=10`"""
    alpha: Annotated[float, Range(0, 1, "both")] = 0.05
    """share of known images that the guard may flag"""
    confidence: Annotated[float, Range(0, 1, "high")] = 0.95
    """that the guard's threshold keeps to that share; 0: it does on average over draws of held-out images"""
    per_class: bool = False
    """a threshold for each class that a picture is taken for, where enough held-out images are"""
    fit: CountOrNone = 5000
    """at most so many known images, drawn by the seed, that detectors learn from; 0: no limit"""
    choose: Count = 1000
    """at most so many known images that the detector is chosen on"""
    held_out: CountOrNone = 5000
    """at most so many known images that the threshold comes from, and never fewer than the guarantee takes;
    0: no limit"""
    seed: Seed = 0
    """of everything random"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
