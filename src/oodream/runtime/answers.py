"""What a classifier or a guard says of a picture."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN", "Prediction"]

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says of one image: the class's name, or "unknown" where it is `flagged`.

    `flagged` tells a flagged image from one of a class that is called "unknown". `score` is higher for OOD,
    and above `threshold` the image is flagged; `likeliest` is the most likely class. `known` is the
    probability that the image is of a known kind, where the classifier was trained with a loss that estimates
    it (phi of DREAM-OOD).

    A guard's have a `p_value`, too: how often a known image has as high a score, by the held-out ones. Where
    it was asked for sets, `candidates` are the classes that the image may be of if it is a known one,
    likeliest first.
    """

    answer: str
    flagged: bool
    score: float
    threshold: float
    likeliest: str
    known: float | None = None
    p_value: float | None = None
    candidates: tuple[str, ...] | None = None
