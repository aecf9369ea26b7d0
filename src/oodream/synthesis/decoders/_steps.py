"""Denoising that can be watched: how far it is, and an end to it between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Watched"]


class Watched:
    """A decoder whose denoising tells how far it is."""

    _watch: Callable[[int, int], None] | None = None

    @contextmanager
    def watching(self, watch: Callable[[int, int], None]) -> Iterator[None]:
        """Within the block, `watch` is called after each step with how many are done, and of how many.

        What it raises ends the drawing.
        """
        before, self._watch = self._watch, watch
        try:
            yield
        finally:
            self._watch = before

    def _stepped(self, done: int, total: int) -> None:
        if self._watch is not None:
            self._watch(done, total)
