"""Inner product with the class's stored pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, class_means, count_classes, learned

__all__ = ["SHE"]


@register("detectors", "she")
@dataclass
class SHE(BaseDetector):
    """Score = -<z, S_c>, c the predicted class, S_c its mean feature over rightly classified images (Zhang et
    al. 2023).
    """

    reads: ClassVar = ("logits", "features", "labels")

    patterns_CF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for a class of which no sample is rightly classified."""
        right_N = output.logits_BC.argmax(1) == y_N
        classes, kind = output.logits_BC.shape[1], "rightly classified training sample"
        count_C = count_classes(y_N[right_N], classes, self, kind)
        self.patterns_CF_ = class_means(output.z_BF[right_N], y_N[right_N], count_C)

    def _score(self, output: Output) -> Tensor:
        """An inner product of features."""
        return -(output.z_BF * self.patterns_CF_[output.logits_BC.argmax(1)]).sum(1)
