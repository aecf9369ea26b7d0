"""What a guard says: a prediction for a picture, and a guarantee about false alarms."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["UNKNOWN", "Guarantee", "Prediction", "answer"]

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """At most the share `alpha` of known images is flagged, by `n` held-out images.

    With a `confidence` this holds for the threshold at hand, unless the draw of the held-out images was one
    of the unlucky 1 - confidence. Without one it holds on average over such draws.
    """

    alpha: float
    confidence: float | None
    n: int

    @property
    def kind(self) -> str:
        """The rule behind the threshold: "tolerance" or "conformal"."""
        return "conformal" if self.confidence is None else "tolerance"

    def __str__(self) -> str:
        how = "on average" if self.confidence is None else f"with {self.confidence:.4g} confidence"
        return f"at most {self.alpha:.2%} of known images are flagged, {how} ({self.n:,} held-out images)"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says of one image: the class's name, or "unknown" where it is `flagged`.

    `flagged` tells a flagged image from one of a class that is called "unknown". `score` is higher for OOD,
    and above `threshold` the image is flagged; `likeliest` is the most likely class. `known` is the
    probability that the image is of a known kind, where the classifier was trained with a loss that estimates
    it (phi of DREAM-OOD).
    """

    answer: str
    flagged: bool
    score: float
    threshold: float
    likeliest: str
    known: float | None = None


def answer(name: str, score: float, threshold: float, known: float | None = None) -> Prediction:
    """The prediction for a picture whose likeliest class is `name`: flagged where its score is above the
    threshold, or is NaN.
    """
    flagged = not score <= threshold
    return Prediction(
        answer=UNKNOWN if flagged else name,
        flagged=flagged,
        score=score,
        threshold=threshold,
        likeliest=name,
        known=known,
    )
