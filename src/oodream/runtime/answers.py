"""What a classifier or a guard says of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .prediction_sets import softmax
from .tails import Floats

__all__ = ["UNKNOWN", "Outputs", "Prediction", "compared", "predictions"]

UNKNOWN = "unknown"
TOP = 5  # classes that a prediction names with their probabilities
EXACT = 17  # decimals, at most, of a score beside a threshold


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a classifier says of one image: the class's name, or "unknown" where it is `flagged`.

    `flagged` tells a flagged image from one of a class that is called "unknown". `score` is higher for OOD,
    and above `threshold` the image is flagged; `likeliest` is the most likely class. `known` is the
    probability that the image is of a known kind, where the classifier was trained with a loss that estimates
    it (phi of DREAM-OOD).

    A guard's have a `p_value`, too: how often a known image has as high a score, by the held-out ones. Where
    it was asked for sets, `candidates` are the classes that the image may be of if it is a known one,
    likeliest first. `top` are the five likeliest classes with the network's probabilities for them.
    """

    answer: str
    flagged: bool
    score: float
    threshold: float
    likeliest: str
    known: float | None = None
    p_value: float | None = None
    candidates: tuple[str, ...] | None = None
    top: tuple[tuple[str, float], ...] = ()

    @property
    def probability(self) -> float | None:
        """The most likely class's probability, by the network."""
        return self.top[0][1] if self.top else None

    def as_labels(self) -> list[dict[str, str | float]]:
        """The prediction as image-classification pipelines of transformers give it: labels with scores,
        likeliest first.

        These are the classes of `top` with their probabilities. Of a flagged image "unknown" comes first, and
        its score is 1 - p-value: the share of held-out known images that look less strange. The classes share
        the rest. Where there is no p-value, the score of "unknown" is 1.
        """
        rest: float = 1
        labels: list[dict[str, str | float]] = []
        if self.flagged:
            rest = self.p_value or 0
            labels.append({"label": UNKNOWN, "score": 1 - rest})
        labels.extend({"label": name, "score": rest * probability} for name, probability in self.top)
        return labels


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a network and a detector make of B pictures: logits (B, C), float32, scores (B,), float64, and the
    probabilities (B,) to be of a known kind, where there are such.
    """

    logits_BC: NDArray[np.float32]
    score_B: Floats
    known_B: NDArray[np.float32] | None


def predictions(
    names: Sequence[str],
    outputs: Outputs,
    threshold_B: Floats,
    p_value_B: Floats | None = None,
    sets: Sequence[NDArray[np.int64]] | None = None,
) -> Iterator[Prediction]:
    """A prediction for each picture, flagged where its score exceeds its threshold, or is NaN.

    `names` are the classes', and `sets` classes for each picture, likeliest first.
    """
    order_BK = np.argsort(-outputs.logits_BC, axis=1, kind="stable")[:, :TOP]
    top_BK = np.take_along_axis(softmax(outputs.logits_BC), order_BK, axis=1).tolist()
    for i, (order, score, threshold) in enumerate(
        zip(order_BK.tolist(), outputs.score_B.tolist(), threshold_B.tolist(), strict=True)
    ):
        label = order[0]
        flagged = not score <= threshold
        yield Prediction(
            answer=UNKNOWN if flagged else names[label],
            flagged=flagged,
            score=score,
            threshold=threshold,
            likeliest=names[label],
            known=None if outputs.known_B is None else outputs.known_B[i].item(),
            p_value=None if p_value_B is None else p_value_B[i].item(),
            candidates=None if sets is None else tuple(names[c] for c in sets[i].tolist()),
            top=tuple((names[c], probability) for c, probability in zip(order, top_BK[i], strict=True)),
        )


def compared(score: float, threshold: float, decimals: int = 2) -> tuple[str, str]:
    """A score and a threshold in digits, with as many decimals, `decimals` at least, as it takes for a score
    above the threshold to be seen above it. (The pages of the studio do so by `compared` of `common.js`.)
    """
    for digits in range(decimals, EXACT + 1):
        texts = f"{score:.{digits}f}", f"{threshold:.{digits}f}"
        if (float(texts[0]) > float(texts[1])) == (score > threshold):
            return texts
    return repr(score), repr(threshold)
