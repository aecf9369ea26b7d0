"""What every guard does with a network's outputs, wherever they come from: answers, thresholds, drift."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .answers import Outputs, Prediction, predictions
from .calibration import Guarantee
from .drift import Drift
from .held_out import ALL, HeldOut
from .pictures import Picture, is_single
from .prediction_sets import prediction_sets
from .tails import Floats

__all__ = ["WINDOW", "Answering"]

WINDOW = 1000
A = TypeVar("A", bound="Answering")


@dataclass(frozen=True, kw_only=True)
class Answering(ABC):
    """Says of pictures which class they show, or "unknown" where their score exceeds the threshold.

    `guarantee` says how often a known picture may be flagged. `held_out` is what is kept of the held-out
    images, for `at`, p-values and prediction sets. Where the guarantee holds class by class, `threshold` is
    the common one, of the classes that have too few of them.
    """

    threshold: float
    guarantee: Guarantee
    held_out: HeldOut = field(repr=False)

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""

    @abstractmethod
    def outputs(self, pictures: Any, batch: int) -> Iterator[Outputs]:
        """The outputs for what `predict` takes, of at most `batch` pictures at a time, in order."""

    @property
    def per_class(self) -> bool:
        """Whether there is a threshold for each class that a picture is taken for."""
        return self.guarantee.too_few is not None

    @cached_property
    def cell_C(self) -> NDArray[np.int64]:
        """For each class the one whose held-out images its threshold and p-values come from, or ALL."""
        too_few = self.names if self.guarantee.too_few is None else self.guarantee.too_few
        return np.array([ALL if name in too_few else c for c, name in enumerate(self.names)])

    @cached_property
    def threshold_C(self) -> Floats:
        """The threshold for pictures that are taken for each class (C,), float64."""
        own = {c: self.held_out.threshold(c, self.guarantee) for c in self.cell_C.tolist() if c != ALL}
        return np.array([own.get(c, self.threshold) for c in self.cell_C.tolist()])

    def at(self: A, alpha: float) -> A:
        """The guard that would have been made with this alpha; nothing else changes.

        Choose alpha before you look at what it flags. Raises ValueError where the held-out images are too few
        to guarantee it; it names what they can guarantee.
        """
        names = self.names if self.per_class else None
        threshold, guarantee = self.held_out.calibrate(alpha, self.guarantee.confidence, names)
        return replace(self, threshold=threshold, guarantee=guarantee)

    def answers(self, outputs: Outputs, sets: tuple[float, str] | None = None) -> Iterator[Prediction]:
        """A prediction for each picture, with a set where the sets' limit and method are given."""
        likeliest_B = outputs.logits_BC.argmax(1)
        return predictions(
            self.names,
            outputs,
            self.threshold_C[likeliest_B],
            self.held_out.p_values(outputs.score_B, self.cell_C[likeliest_B]),
            None if sets is None else prediction_sets(outputs.logits_BC, *sets),
        )

    @overload
    def predict(
        self, pictures: Image.Image | str | bytes | os.PathLike[str], batch: int = 256
    ) -> Prediction: ...
    @overload
    def predict(
        self, pictures: list[Picture] | tuple[Picture, ...], batch: int = 256
    ) -> list[Prediction]: ...
    @overload
    def predict(self, pictures: Any, batch: int = 256) -> Prediction | list[Prediction]: ...

    def predict(self, pictures: Any, batch: int = 256) -> Prediction | list[Prediction]:
        """A prediction for a single picture, a list of them for several, in order.

        One picture is a path, the bytes of an image file, a row of a data set with either, a PIL image, an
        array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W): uint8, or floats in [0, 1]. Several are
        arrays (B, H, W, C), tensors (B, C, H, W), an image set, or any iterable of pictures and batches, of
        whatever sizes; it is read `batch` pictures at a time, as training images were (see `pictures`).

        Raises DataError, which names what cannot be read.
        """
        return self._predict(pictures, batch)

    def predict_set(
        self, pictures: Any, alpha: float = 0.1, method: str = "raps", batch: int = 256
    ) -> Prediction | list[Prediction]:
        """What `predict` returns, with `candidates`: classes among which a known picture's own is.

        It is missing from at most the share `alpha` of known pictures' sets, on average over draws of the
        held-out images; flagged pictures have their set, too. `method` is "lac", "aps" or "raps" (see
        `prediction_sets`). Raises ValueError for another method, and where the held-out images are too few,
        or without true labels.
        """
        return self._predict(pictures, batch, (self.held_out.set_limit(alpha, method), method))

    def drift(self, stream: Any = (), window: int = WINDOW) -> Drift:
        """A summary of a stream beside the held-out images.

        The stream begins with scores (a vector, or a list of numbers) or with what `predict` takes, and goes
        on with `add(scores)`. The summary tells of all scores and of the last `window`.
        """
        drift = Drift(
            threshold=self.threshold,
            guarantee=self.guarantee,
            score_N=self.held_out.score_N,
            window=window,
        )
        return drift.add(stream if _is_scores(stream) else self._scores(stream))

    def _scores(self, pictures: Any, batch: int = 256) -> Floats:
        """The scores (N,) of what `predict` takes."""
        return np.concatenate([np.zeros(0), *(part.score_B for part in self.outputs(pictures, batch))])

    def _predict(
        self, pictures: Any, batch: int, sets: tuple[float, str] | None = None
    ) -> Prediction | list[Prediction]:
        every = [one for part in self.outputs(pictures, batch) for one in self.answers(part, sets)]
        return every[0] if is_single(pictures) else every


def _is_scores(stream: Any) -> bool:
    if isinstance(stream, (list, tuple)):
        return all(isinstance(value, (int, float, np.floating)) for value in stream)
    return getattr(stream, "ndim", 0) == 1
