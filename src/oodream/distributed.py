"""Which part of the work is this process's: no-ops in one process, torchrun's and accelerate's variables in several."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"Shard {self.index}/{self.count} does not exist: shards are counted from 0.")

    def rows(self, n: int, block: int) -> Tensor:
        """Those of rows 0…n-1 that lie in every `count`-th block of `block` rows: int64, ascending. Parts are disjoint."""
        rows = torch.arange(n)
        return rows[rows // block % self.count == self.index]


def launched() -> Shard:
    """The part of a process started by torchrun or accelerate; the whole where none of them did."""
    return Shard(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def shard(text: str) -> Shard:
    """ "2/8" is part 2 of 8, counted from 0."""
    if not (found := re.fullmatch(r"(\d+)/(\d+)", text)):
        raise ValueError(f"A shard is written i/n, as 0/8 … 7/8, not {text!r}.")
    return Shard(int(found[1]), int(found[2]))


def local_rank() -> int:
    """Which of this machine's devices is this process's."""
    return int(os.environ.get("LOCAL_RANK", 0))
