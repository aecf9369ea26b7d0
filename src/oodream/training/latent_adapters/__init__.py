"""Latent adapters: how a latent reaches the classifier. One method, one file; here is what they minimise."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["NO_ADAPTER", "unexplained_variance"]

NO_ADAPTER = "none"  # in place of an adapter's name: latents reach no classifier


def unexplained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of the first rows of `prediction` over the variance of `target`: a scalar.

    0 is exact, 1 is no better than the mean. It is 0 where `target` has no rows.
    """
    if len(target) == 0:
        return prediction.sum() * 0
    return F.mse_loss(prediction[: len(target)], target) / target.var().clamp(min=1e-6)
