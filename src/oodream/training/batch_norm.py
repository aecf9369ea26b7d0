"""Batch normalization over a batch that several processes share: mean and variance are those of all rows.

PyTorch's `SyncBatchNorm` does so on accelerators alone, and in layers that are put in the place of others.
This works on any device, and for any layer that calls `torch.nn.functional.batch_norm`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..core.distributed import current_shard, gathered

__all__ = ["synchronised"]


def synchronised() -> AbstractContextManager[object]:
    """Within the block, batches are normalized with the statistics of all processes; each must come to every
    layer. Without other processes nothing is otherwise.
    """
    return _Synchronised() if current_shard().count > 1 else nullcontext()


class _Synchronised(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """As `F.batch_norm`, of all processes' rows."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    x = input.float()
    mean_C, var_C, n = _moments(x)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_((var_C * n / (n - 1)).to(running_var.dtype), momentum)
    scale_C = (var_C + eps).rsqrt() * (1 if weight is None else weight)
    shift_C = (0 if bias is None else bias) - mean_C * scale_C
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return (x * scale_C.view(shape) + shift_C.view(shape)).to(input.dtype)


def _moments(x: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of every channel over the rows of all processes (Chan et al. 1983, parts merged), and
    how many values a channel has.
    """
    own, dims = x.numel() // x.shape[1], [d for d in range(x.ndim) if d != 1]
    mean_C = x.sum(dims) / max(1, own)
    var_C = (x - mean_C.view(1, -1, *(1,) * (x.ndim - 2))).square().sum(dims) / max(1, own)
    shard = current_shard()
    part = torch.cat([mean_C, var_C, mean_C.new_tensor([own])])[None]
    all_P = gathered(part, torch.tensor([shard.index]), shard.count)
    n_P1 = all_P[:, -1:].detach()
    mean_PC, var_PC = all_P[:, :-1].chunk(2, dim=1)
    share_P1 = n_P1 / n_P1.sum()
    mean_C = (share_P1 * mean_PC).sum(0)
    return mean_C, (share_P1 * (var_PC + (mean_PC - mean_C).square())).sum(0), float(n_P1.sum())
