"""Which of several processes this one is, by the variables of torchrun and accelerate that started them;
without PyTorch.
"""

from __future__ import annotations

import os

__all__ = ["is_main", "local_rank", "place"]


def place() -> tuple[int, int]:
    """This process's index, and how many there are: (0, 1) where nothing started several."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """Which of this machine's devices is this process's."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """Whether this process writes what all share: the only one, or the first of several."""
    return place()[0] == 0
