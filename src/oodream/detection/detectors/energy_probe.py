"""The energy with class weights, slope and offset that outliers teach, on logits of a network as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import softplus

from ...core.options import Range
from ...core.registry import register
from ...core.types import OOD, Head, Output
from . import BaseDetector, learned

__all__ = ["EnergyProbe"]


@register("detectors", "energy_probe")
@dataclass
class EnergyProbe(BaseDetector):
    """Score = a E_w(x) + b, E_w(x) = -log sum_c w_c exp f_c(x), the log-odds of "outlier" with a, b and w
    fitted to ID training images against outliers, a and w positive (VOS's phi, Du et al. 2022, equations 5 to
    7).

    It is what the loss `energy_logistic` learns, for a network that stays as it is. Both kinds weigh the same
    whatever their numbers. `l2` / 2 times the squares of log w and log a is added to the mean of the two
    losses, so that few outliers move the weights little; with equal weights the order is that of `energy`.
    """

    reads: ClassVar = ("logits",)
    uses_outliers: ClassVar[bool] = True
    GRID: ClassVar = {"l2": (0.0001, 0.001, 0.01, 0.1)}

    l2: Annotated[float, Range(0, open="low")] = 0.001
    log_weight_C_: Tensor = learned()
    slope_: Tensor = learned()
    offset_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        outlier_N = y_N == OOD

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = torch.from_numpy(values.copy()).requires_grad_()
            log_slope, offset, log_weight_C = parameters[0], parameters[1], parameters[2:]
            score_N = _score(output.logits_BC, log_weight_C, log_slope.exp(), offset)
            fit = (softplus(score_N[~outlier_N]).mean() + softplus(-score_N[outlier_N]).mean()) / 2
            total = fit + self.l2 / 2 * (log_weight_C.square().sum() + log_slope.square())
            (slope,) = torch.autograd.grad(total, parameters)
            return total.item(), slope.numpy()

        start = np.zeros(2 + output.logits_BC.shape[1])
        start[1] = output.logits_BC.logsumexp(1).mean().item()
        best = torch.from_numpy(minimize(loss, start, jac=True, method="L-BFGS-B").x)
        self.slope_, self.offset_, self.log_weight_C_ = best[0].exp(), best[1].clone(), best[2:].clone()

    def _score(self, output: Output) -> Tensor:
        """In nats."""
        return _score(output.logits_BC, self.log_weight_C_, self.slope_, self.offset_)


def _score(logits_NC: Tensor, log_weight_C: Tensor, slope: Tensor, offset: Tensor) -> Tensor:
    return offset - slope * (logits_NC + log_weight_C).logsumexp(1)
