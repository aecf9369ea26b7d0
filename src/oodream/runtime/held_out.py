"""What a guard keeps of its held-out images: enough for every threshold, p-value and prediction set there is.

Of n images `guard.safetensors` holds, in the order of their scores, `score_N` (float64, ascending) and
`likeliest_N` (int64: the class that the network takes each for); and, where their classes are known, where
the true ones stand (`prediction_sets.Standing`): `probability_N`, `above_N` (float64) and `rank_N` (int64).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import Guarantee, calibrate, least, p_values
from .prediction_sets import Standing, set_limit, standing
from .tails import Floats

__all__ = ["ALL", "HeldOut"]

ALL = -1  # in place of a class: the held-out images of all classes


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Scores of held-out known images, ascending, and the class that each is taken for.

    `standing` is where their true classes stand, None where they are not known.
    """

    score_N: Floats
    likeliest_N: NDArray[np.int64]
    standing: Standing | None

    @classmethod
    def of(cls, score_N: ArrayLike, logits_NC: ArrayLike, y_N: ArrayLike | None) -> HeldOut:
        """Of images in any order, with their true classes or without."""
        scores_N = np.asarray(score_N, dtype=np.float64)
        order_N = np.argsort(scores_N, kind="stable")
        ordered_NC = np.asarray(logits_NC)[order_N]
        return cls(
            score_N=scores_N[order_N],
            likeliest_N=ordered_NC.argmax(1),
            standing=None if y_N is None else standing(ordered_NC, np.asarray(y_N)[order_N]),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> HeldOut:
        """What `arrays` gave; KeyError names what is not there."""
        known = {name: arrays[name] for name in Standing.__dataclass_fields__ if name in arrays}
        return cls(
            score_N=arrays["score_N"],
            likeliest_N=arrays["likeliest_N"],
            standing=Standing(**known) if known else None,
        )

    def arrays(self) -> dict[str, NDArray]:
        """All of it by name, as it is saved."""
        known = {} if self.standing is None else vars(self.standing)
        return {"score_N": self.score_N, "likeliest_N": self.likeliest_N, **known}

    def calibrate(
        self, alpha: float, confidence: float | None, per_class: Sequence[str] | None = None
    ) -> tuple[float, Guarantee]:
        """The common threshold and what is guaranteed: class by class, where the classes' names are given.

        Raises ValueError where even all held-out images are too few; it names what they can guarantee.
        """
        threshold, guarantee = calibrate(self.score_N, alpha, confidence)
        if per_class is None:
            return threshold, guarantee
        needed, counts = least(alpha, confidence), np.bincount(self.likeliest_N, minlength=len(per_class))
        few = {name: n for name, n in zip(per_class, counts.tolist(), strict=True) if n < needed}
        return threshold, Guarantee(alpha=alpha, confidence=confidence, n=guarantee.n, too_few=few)

    def threshold(self, cell: int, guarantee: Guarantee) -> float:
        """The threshold from the held-out images of a class, or of ALL."""
        return calibrate(self._scores(cell), guarantee.alpha, guarantee.confidence)[0]

    def p_values(self, score_B: Floats, cell_B: NDArray[np.int64]) -> Floats:
        """p-values (B,) of scores beside the held-out images of the class `cell_B`, or of ALL."""
        p_B = np.empty(len(score_B))
        for cell in np.unique(cell_B).tolist():
            rows_B = cell_B == cell
            p_B[rows_B] = p_values(score_B[rows_B], self._scores(cell))
        return p_B

    def set_limit(self, alpha: float, method: str) -> float:
        """`prediction_sets.set_limit`; ValueError where the true classes are not known."""
        if self.standing is None:
            raise ValueError(
                "Prediction sets take held-out images with true labels, and this guard was made without."
            )
        return set_limit(self.standing, alpha, method)

    def _scores(self, cell: int) -> Floats:
        return self.score_N if cell == ALL else self.score_N[self.likeliest_N == cell]
