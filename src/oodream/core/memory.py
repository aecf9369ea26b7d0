"""How much memory there is, and how much a piece of work takes: of a GPU what PyTorch holds, else of the
whole process.
"""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

__all__ = ["Watch", "free"]


def free(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return psutil.virtual_memory().available


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
