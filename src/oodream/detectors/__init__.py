"""Post-hoc detectors: outputs in, scores out (float64, higher = OOD). One method, one file.

What they share lives here: the check of their input, and the error of one that scores before it is fitted.
"""

from __future__ import annotations

from torch import Tensor


class NotFitted(RuntimeError):
    """A detector was asked to score before `fit` has shown it ID training outputs."""

    def __init__(self, detector: object) -> None:
        super().__init__(f"{type(detector).__name__} scores only after fit(output, y_N).")


def checked(values: Tensor, what: str) -> Tensor:
    """The values in float64; ValueError names `what` when it holds NaN or infinity."""
    if not values.isfinite().all():
        raise ValueError(f"The {what} contain NaN or infinity.")
    return values.detach().double()
