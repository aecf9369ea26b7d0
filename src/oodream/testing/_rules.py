"""What the checks of extensions share: how a rule fails, and what must not be touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..core.faults import BrokenRule, require

__all__ = ["rules_of", "run_rules", "untouched"]


@contextmanager
def rules_of(extension: Any) -> Iterator[None]:
    """Within the block, which checks an extension (its name, or what makes it), AssertionError names it, and
    the rule that is broken or what the extension raises.
    """
    name = extension if isinstance(extension, str) else getattr(extension, "__name__", repr(extension))
    try:
        yield
    except (AssertionError, BrokenRule) as error:
        raise AssertionError(f"{name}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{name}: it raises {type(error).__name__} ({error}).") from error


def run_rules(extension: Any, rules: Sequence[Callable[[], None]]) -> None:
    """Calls the rules in turn, within `rules_of` the extension."""
    with rules_of(extension):
        for rule in rules:
            rule()


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
