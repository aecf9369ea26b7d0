"""Guards by name: in PyTorch, or on their graph where that is meant or PyTorch is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.options import ConfigError
from ..runtime.graph import runs_on_graph
from ..runtime.guard import Guard as GraphGuard

if TYPE_CHECKING:
    from .guard import Guard

__all__ = ["load_any", "load_graph"]


def load_graph(place: str, device: str = "auto", threads: int = 0) -> GraphGuard:
    """The guard on the graph in a file or a folder (see `runtime.Guard.load`).

    Raises ConfigError for another device than the processor.
    """
    if device not in ("auto", "cpu"):
        raise ConfigError(f"A graph runs on the processor, so --device {device} cannot be.")
    return GraphGuard.load(place, threads=threads)


def load_any(place: str, device: str = "cpu", plugins: bool = False) -> Guard | GraphGuard:
    """The guard on a graph, where `place` is a graph's file or PyTorch is not installed, else the one that
    `Guard.load` reads.
    """
    if runs_on_graph(place):
        return load_graph(place, device)
    from .guard import Guard

    return Guard.load(place, device, plugins)
