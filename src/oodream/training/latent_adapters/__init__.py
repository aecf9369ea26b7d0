"""Latent adapters: how a latent reaches the classifier. One method, one file; here is what they minimise."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ...core.faults import require
from ...core.types import Output

__all__ = ["NO_ADAPTER", "check_adapted", "unexplained_variance"]

NO_ADAPTER = "none"  # in place of an adapter's name: latents reach no classifier


def check_adapted(given: Any, rows: int) -> None:
    """Raises BrokenRule unless an adapter gave outputs of so many rows, and a scalar or None."""
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Output)
    require(pair, f"It returns (Output, its own loss or None), not {type(given).__name__}.")
    output, own = given
    shapes = [tuple(x.shape) for x in (output.logits_BC, output.z_BF)]
    right = all(len(shape) == 2 and shape[0] == rows for shape in shapes)
    require(right, f"Its outputs have the shapes {shapes}, not {rows} rows: one for each image and latent.")
    require(own is None or (isinstance(own, Tensor) and own.ndim == 0), "Its own loss is no scalar.")


def unexplained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean squared error of the first rows of `prediction` over the variance of `target`: a scalar.

    0 is exact, 1 is no better than the mean. It is 0 where `target` has no rows.
    """
    if len(target) == 0:
        return prediction.sum() * 0
    return F.mse_loss(prediction[: len(target)], target) / target.var().clamp(min=1e-6)
