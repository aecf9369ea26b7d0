"""The probability of an unknown class, from the tails of distances to the classes' mean activations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...core.options import Range
from ...core.registry import register
from ...core.types import Head, Output
from . import BaseDetector, class_means, count_classes, learned

__all__ = ["OpenMax", "weibull"]

SHIFT = 10_000.0
STEEPEST = 1e7  # of shapes; that of distances which hardly differ


@register("detectors", "openmax")
@dataclass
class OpenMax(BaseDetector):
    """Score = log(p_0 / (1 - p_0)), p_0 OpenMax's probability of "unknown" (Bendale & Boult 2016, algorithms
    1 and 2).

    A Weibull distribution is fitted, for each class, to the `tail` largest Euclidean distances of rightly
    classified training logits from their mean, moved so that the smallest of them is at SHIFT, as LibMR does.
    The `alpha` largest logits give up the share (alpha - rank) / alpha, rank from 0, times the Weibull's
    distribution function at their distance, and what they give up is the logit of "unknown".
    """

    reads: ClassVar = ("logits", "labels")
    GRID: ClassVar = {"tail": (10, 20, 40), "alpha": (2, 3, 5, 10)}

    tail: Annotated[int, Range(2)] = 20
    alpha: Annotated[int, Range(1)] = 3
    means_CC_: Tensor = learned()
    shape_C_: Tensor = learned()
    scale_C_: Tensor = learned()
    least_C_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError for a class with fewer than two rightly classified samples."""
        logits_NC = output.logits_BC
        right_N = logits_NC.argmax(1) == y_N
        logits_NC, y_N = logits_NC[right_N], y_N[right_N]
        kind = "rightly classified training sample"
        count_C = count_classes(y_N, logits_NC.shape[1], self, kind, least=2)
        self.means_CC_ = class_means(logits_NC, y_N, count_C)
        distance_N = (logits_NC - self.means_CC_[y_N]).norm(dim=1)
        tails = [distance_N[y_N == c].sort(descending=True).values[: self.tail] for c in range(len(count_C))]
        self.least_C_ = torch.stack([tail[-1] for tail in tails])
        fits = [weibull(tail - tail[-1] + SHIFT) for tail in tails]
        self.shape_C_, self.scale_C_ = torch.tensor(fits, dtype=torch.float64).T

    def _score(self, output: Output) -> Tensor:
        """Log odds."""
        logits_NC = output.logits_BC
        alpha = min(self.alpha, logits_NC.shape[1])
        top_NA = logits_NC.topk(alpha, dim=1).indices
        distance_NC = torch.cdist(logits_NC, self.means_CC_, compute_mode="donot_use_mm_for_euclid_dist")
        moved_NC = (distance_NC - self.least_C_ + SHIFT).clamp(min=0)
        outside_NC = -torch.expm1(-((moved_NC / self.scale_C_) ** self.shape_C_))
        rank_A = torch.arange(alpha, dtype=torch.float64)
        given_up_NA = logits_NC.gather(1, top_NA) * outside_NC.gather(1, top_NA) * (alpha - rank_A) / alpha
        left_NC = logits_NC.scatter_add(1, top_NA, -given_up_NA)
        return given_up_NA.sum(1) - left_NC.logsumexp(1)


def weibull(x_N: Tensor) -> tuple[float, float]:
    """Shape and scale of the two-parameter Weibull distribution most likely to give x > 0.

    The shape solves sum(x^k log x) / sum(x^k) - 1 / k = mean(log x), whose left side grows with k; found by
    bisection.
    """
    log_N = (x_N / x_N.amax()).log()
    low, high = 0.0, math.log(STEEPEST)
    for _ in range(80):
        k = math.exp((low + high) / 2)
        grows = ((k * log_N).softmax(0) * log_N).sum() - 1 / k - log_N.mean()
        low, high = (low, math.log(k)) if grows > 0 else (math.log(k), high)
    k = math.exp((low + high) / 2)
    return k, float(x_N.amax() * (k * log_N).exp().mean() ** (1 / k))
