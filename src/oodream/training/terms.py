"""How a training asks its losses: what each gives is checked, and what it does wrong has its name. Several
losses add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ..core import registry
from ..core.faults import blamed, require
from ..core.types import Loss, Sizes, Step, Terms

__all__ = ["LossSum", "build_loss", "check_is_loss", "check_terms", "name_of", "terms_of"]

RESERVED = {"loss", "accuracy", "adapter"}  # the training log's own columns


class LossSum(Loss):
    """Losses that add up. Their parts keep their names; those of a loss NAME@LABEL are called PART@LABEL."""

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.names = tuple(losses)
        # A module's name may hold no dot, which a plug-in's does.
        self.losses = nn.ModuleDict({name.replace(".", "/"): loss for name, loss in losses.items()})
        self.outliers = any(loss.outliers for loss in losses.values())
        self.teacher = any(loss.teacher for loss in losses.values())
        self.needs_head = any(loss.needs_head for loss in losses.values())

    def build(self, sizes: Sizes) -> None:
        for name, loss in self._by_name():
            build_loss(loss, sizes, name)

    def forward(self, step: Step) -> Terms:
        terms = {name: terms_of(loss, step, name) for name, loss in self._by_name()}
        parts = {
            part + "".join(name.partition("@")[1:]): value
            for name, own in terms.items()
            for part, value in own.parts.items()
        }
        return Terms(total=torch.stack([own.total for own in terms.values()]).sum(), parts=parts)

    def _by_name(self) -> Iterator[tuple[str, Loss]]:
        return zip(self.names, cast("Iterable[Loss]", self.losses.values()), strict=True)


def name_of(loss: Loss) -> str:
    """What a loss is called in messages, as in the options: its name, or the names of those that it adds
    up.
    """
    return "+".join(loss.names) if isinstance(loss, LossSum) else registry.name_of("losses", loss)


def build_loss(loss: Loss, sizes: Sizes, name: str = "") -> None:
    """Has a loss make its networks; ValueError, with its name, for whatever it raises."""
    with blamed(f"The loss {name or name_of(loss)}", loss):
        loss.build(sizes)


def terms_of(loss: Loss, step: Step, name: str = "") -> Terms:
    """What a loss says of a step. Raises ValueError, with the loss's name, for whatever it raises, and for
    what `check_terms` refuses.
    """
    with blamed(f"The loss {name or name_of(loss)}", loss):
        terms: Terms = loss(step)
        check_terms(terms)
    return terms


def check_is_loss(loss: object) -> None:
    """Raises BrokenRule for what is no `Loss`, or has not been made by the constructor of one."""
    require(isinstance(loss, Loss), "A loss is a subclass of oodream.core.types.Loss.")
    require(hasattr(loss, "_parameters"), "Its __init__ does not call super().__init__().")


def check_terms(terms: Terms) -> None:
    """Raises BrokenRule unless a loss gave scalars: a total with a gradient, and parts with names."""
    require(isinstance(terms, Terms), f"A loss returns Terms(total, parts), not {type(terms).__name__}.")
    require(isinstance(terms.parts, Mapping), "Parts are named in a dictionary, not", terms.parts)
    for name, value in (("", terms.total), *terms.parts.items()):
        called = f"The part {name!r}" if name else "The total"
        require(isinstance(value, Tensor), f"{called} is a tensor, not", value)
        require(value.ndim == 0, f"{called} is a scalar, not of shape {tuple(value.shape)}.")
    for name in terms.parts:
        require(isinstance(name, str) and name != "", "A part has no name.")
        require(name not in RESERVED, f"A part is called {name!r}, a column of every training log.")
    learns = terms.total.requires_grad or not torch.is_grad_enabled()
    require(learns, "The total carries no gradient: nothing would be learned from it.")
