"""A logistic regression of known images against outliers, on the network's features as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import OOD, Head, Output
from . import BaseDetector, learned

__all__ = ["OutlierProbe"]

ITERATIONS = 1000


@register("detectors", "outlier_probe")
@dataclass
class OutlierProbe(BaseDetector):
    """Score = <w, z> + b, the log-odds of "outlier" by a logistic regression of ID training features against
    outliers' (scikit-learn's `LogisticRegression`).

    Outliers teach the detector, and the network stays as it is. Both kinds weigh the same whatever their
    numbers. Features are scaled to unit variance; then the loss is the mean log-likelihood's with
    `l2` / 2 |w|^2.
    """

    reads: ClassVar = ("features",)
    uses_outliers: ClassVar[bool] = True
    GRID: ClassVar = {"l2": (0.001, 0.01, 0.1, 1.0, 10.0)}

    l2: Annotated[float, Range(0, open="low")] = 0.01
    weight_F_: Tensor = learned()
    bias_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        mean_F, spread_F = output.z_BF.mean(0), output.z_BF.std(0, correction=0)
        spread_F = spread_F.where(spread_F > 0, torch.ones_like(spread_F))
        scaled_NF, outlier_N = (output.z_BF - mean_F) / spread_F, (y_N == OOD).numpy()
        # scikit-learn's C weighs the sum of the losses, and balanced weights add up to the number of rows.
        model = LogisticRegression(
            C=1 / (self.l2 * len(output)), class_weight="balanced", max_iter=ITERATIONS, tol=1e-6
        ).fit(scaled_NF.numpy(), outlier_N)
        self.weight_F_ = torch.from_numpy(np.ascontiguousarray(model.coef_[0])) / spread_F
        self.bias_ = torch.tensor(float(model.intercept_[0]), dtype=torch.float64) - mean_F @ self.weight_F_

    def _score(self, output: Output) -> Tensor:
        """In nats."""
        return output.z_BF @ self.weight_F_ + self.bias_
