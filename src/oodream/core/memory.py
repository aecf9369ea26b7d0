"""How much memory there is, how much a piece of work takes (of a GPU what PyTorch holds, else of the whole
process), and what to do where there is too little.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import psutil
import torch
from torch import Tensor

__all__ = ["MemoryShort", "Watch", "advice", "free", "in_halves", "out_of_memory"]


def free(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return psutil.virtual_memory().available


class MemoryShort(RuntimeError):
    """Memory does not hold a piece of work; the message says what to lower."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's, the CPU's or Python's allocator gave up."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


@contextmanager
def advice(what: str, lower: str) -> Iterator[None]:
    """Within the block, memory that gives out becomes a MemoryShort that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryShort) or not out_of_memory(error):
            raise
        raise MemoryShort(f"{what}: memory gave out. {lower} What is finished is kept.") from error


def in_halves(rows: Tensor, work: Callable[[Tensor], Tensor], what: str) -> Tensor:
    """`work` on the rows, or, where memory does not hold it, on each half of them, joined.

    Raises MemoryShort where it holds no single row. `what` names the rows' owners in messages.
    """
    try:
        return work(rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        half = len(rows) // 2
        if not half:
            raise MemoryShort(f"Memory does not hold one of {what}. What is finished is kept.") from error
    warnings.warn(f"Memory does not hold {len(rows)} of {what}: they are taken in halves.", stacklevel=2)
    return torch.cat([in_halves(part, work, what) for part in (rows[:half], rows[half:])])


class Watch:
    """Around work: `before` and `most` are the bytes held when it began, and at most while it went on."""

    def __init__(self, device: torch.device, every: float = 0.02) -> None:
        self.device, self.every = device, every
        self._done, self._thread = threading.Event(), threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = self.most = torch.cuda.memory_allocated(self.device)
        else:
            self.before = self.most = psutil.Process().memory_info().rss
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.most = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        while not self._done.wait(self.every):
            self.most = max(self.most, process.memory_info().rss)
