"""Random numbers that belong to a purpose and an index, never to a process or a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derive", "generator", "seeded"]


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed, a hash of (seed, purpose…): equal arguments, equal seed, on any machine."""
    key = "/".join(map(str, (seed, *purpose))).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A fresh CPU generator for this (seed, purpose…); draw on the CPU and move, so every device sees the
    same numbers.
    """
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """For weight initialisers: within the block torch's global generator stands at (seed, purpose…);
    afterwards where it was.
    """
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, *purpose))
        yield
