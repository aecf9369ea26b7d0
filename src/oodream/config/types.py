"""The numbers that options may be."""

from __future__ import annotations

from typing import Annotated

from ..core.options import Range

__all__ = ["Count", "CountOrNone", "Fraction", "NotNegative", "Positive", "Seed"]

Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, open="low")]
NotNegative = Annotated[float, Range(0)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
