"""Keeps imagined images that the classifier is neither sure of nor takes for nothing like their class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor, nn

from ...core.options import Range, Section, check_interval
from ...core.registry import register
from ._probability import probabilities

__all__ = ["Confident"]

Probability = Annotated[float, Range(0, 1)]


@register("filters", "confident")
@dataclass(frozen=True, kw_only=True)
class Confident(Section):
    """Keeps an image whose class has a probability of at least `low`, and none of the classes one above
    `high`, under the baseline classifier.

    Below the band an image is too far from its class to teach anything, above it it is a known thing: its own
    class or another one.
    """

    kind: ClassVar[str] = "outlier"
    low: Probability = 0.05
    high: Probability = 0.9
    reason: str = field(
        default="the baseline classifier is too sure of a class, or finds nothing of its own", init=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.low, self.high)

    def __call__(self, images_B3HW: Tensor, y_B: Tensor, baseline: nn.Module) -> Tensor:
        """True (B,) for images (uint8) that stay."""
        p_BC = probabilities(baseline, images_B3HW)
        return (p_BC.gather(1, y_B[:, None])[:, 0] >= self.low) & (p_BC.amax(1) <= self.high)
