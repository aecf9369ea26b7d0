"""Words as samplers see them: names with vectors, the way to look them up, and the protocol of samplers that
need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor
from torch.nn.functional import normalize

from .types import Sampler

__all__ = ["Lookup", "WordSampler", "Words"]

TOGETHER = 1024  # vectors that are compared at once


@dataclass(frozen=True, kw_only=True)
class Words:
    """V names that a decoder can draw, and the unit vectors `z_VD` (float32) of T(name)."""

    names: tuple[str, ...]
    z_VD: Tensor

    def nearest(self, z_MD: Tensor, n: int) -> list[list[str]]:
        """The n names whose vectors have the largest cosine to each vector, nearest first."""
        nearest = (
            (normalize(part, dim=1) @ self.z_VD.T).topk(min(n, len(self.names)), dim=1).indices.tolist()
            for part in z_MD.split(TOGETHER)
        )
        return [[self.names[i] for i in row] for part in nearest for row in part]


Lookup = Callable[[Sequence[str]], Words]


@runtime_checkable
class WordSampler(Sampler, Protocol):
    """A sampler that needs words. `with_words` returns it with those that it takes from `lookup`, before it
    is called.

    `lookup` gives the words of a list of names, or, of an empty list, all that no class has. Raises
    ValueError for names that cannot be used.
    """

    def with_words(self, lookup: Lookup) -> Sampler: ...
