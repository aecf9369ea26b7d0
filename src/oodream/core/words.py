"""Words as samplers see them: names with vectors, the way to look them up, and the protocol of samplers that
need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from .types import Sampler

__all__ = ["Lookup", "WordSampler", "Words"]


@dataclass(frozen=True, kw_only=True)
class Words:
    """V names that a decoder can draw, and the unit vectors `z_VD` (float32) of T(name)."""

    names: tuple[str, ...]
    z_VD: Tensor


Lookup = Callable[[Sequence[str]], Words]


@runtime_checkable
class WordSampler(Sampler, Protocol):
    """A sampler that needs words. `with_words` returns it with those that it takes from `lookup`, before it
    is called.

    `lookup` gives the words of a list of names, or, of an empty list, all that no class has. Raises
    ValueError for names that cannot be used.
    """

    def with_words(self, lookup: Lookup) -> Sampler: ...
