"""What the checks of samplers, decoders and filters share: how a rule fails, and what must not be touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["require", "run_rules", "untouched"]


def require(condition: bool, rule: str) -> None:
    """Raises AssertionError with the sentence `rule` unless the condition holds; also under `python -O`."""
    if not condition:
        raise AssertionError(rule)


def run_rules(name: str, rules: Sequence[Callable[[], None]]) -> None:
    """Calls the rules in turn; AssertionError names the extension and the rule that is broken or cannot be
    tried.
    """
    for rule in rules:
        try:
            rule()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{name}: it raises {type(error).__name__} ({error}).") from error


@contextmanager
def untouched(*tensors: Tensor) -> Iterator[None]:
    """Within the block neither the tensors nor PyTorch's global random numbers may change."""
    copies, state = [x.clone() for x in tensors], torch.get_rng_state()
    yield
    same = all(torch.equal(a, b) for a, b in zip(tensors, copies, strict=True))
    require(same, "It must leave the tensors that it is given as they are.")
    require(
        torch.equal(state, torch.get_rng_state()),
        "Its random numbers must come from generators of its own, made from the seed, not from PyTorch's "
        "global one.",
    )
