"""Which part of the work is this process's, and what processes tell each other: no-ops where there is one
process.

Processes are started by torchrun or accelerate, whose variables are read here; accelerate joins them,
PyTorch's DistributedDataParallel averages their gradients. What a batch says as a whole, its outputs and its
statistics, is put together by `gathered`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from .processes import is_main, local_rank, place

__all__ = [
    "Shard",
    "averaged",
    "barrier",
    "current_shard",
    "from_main",
    "gathered",
    "is_main",
    "local_rank",
    "mean",
    "shard",
]


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"Shard {self.index}/{self.count} does not exist: shards are counted from 0.")

    def rows(self, n: int, block: int) -> Tensor:
        """Those of rows 0…n-1 that lie in every `count`-th block of `block` rows: int64, ascending. Parts are
        disjoint.
        """
        rows = torch.arange(n)
        return rows[rows // block % self.count == self.index]

    def of(self, n: int) -> slice:
        """Every `count`-th of n rows, from `index` on: another way of parting them."""
        return slice(self.index, n, self.count)


def current_shard() -> Shard:
    """The part of a process started by torchrun or accelerate; the whole where none of them did."""
    return Shard(*place())


def shard(text: str) -> Shard:
    """ "2/8" is part 2 of 8, counted from 0."""
    if not (found := re.fullmatch(r"(\d+)/(\d+)", text)):
        raise ValueError(f"A shard is written i/n, as 0/8 … 7/8, not {text!r}.")
    return Shard(int(found[1]), int(found[2]))


def barrier(device: torch.device) -> None:
    """Returns when every process has come here; joins them at the first call."""
    if current_shard().count > 1:
        from accelerate import PartialState

        # One process may work for hours on what cannot be shared, while the others wait.
        PartialState(cpu=device.type == "cpu", timeout=timedelta(days=30)).wait_for_everyone()


def from_main(decide: Callable[[], bool]) -> bool:
    """What the first process decides, told to all others. Needs `barrier` before.

    Processes that look at a common disk by themselves may see other things, and would then wait for each
    other for ever.
    """
    if current_shard().count == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([decide() if is_main() else None])[0])


def averaged(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, whose gradients become the mean over all processes; as it is in one process. Needs
    `barrier` before.
    """
    if current_shard().count == 1:
        return module
    return nn.parallel.DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)


def mean(values: Tensor) -> Tensor:
    """The mean of every process's values."""
    if current_shard().count > 1:
        torch.distributed.all_reduce(values)
        values /= current_shard().count
    return values


def gathered(part: Tensor, rows: Tensor, total: int) -> Tensor:
    """The tensor of `total` rows of which this process has `part` at `rows`, and the others theirs.

    The gradient is the sum of all processes' gradients. So where each computes the same loss of the whole,
    and parameters' gradients are then averaged, they are those that one process would have.
    """
    whole = part.new_zeros(total, *part.shape[1:]).index_copy(0, rows.to(part.device), part)
    summed: Tensor = _Summed.apply(whole)
    return summed


class _Summed(torch.autograd.Function):
    """The sum over all processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(x)
    return x
