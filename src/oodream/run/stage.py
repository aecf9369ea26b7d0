"""What a stage is: its work, and everything that its result is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.types import Json

if TYPE_CHECKING:
    from .job import Job

__all__ = ["Stage"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A folder of the run, the work that fills it and returns a summary, and what it is made from.

    It is made from whole `sections` of the configuration, from the stages it comes `after`, and from `facts`:
    hashes of images and weights, seeds. These are found when they are asked for, so that stages have their
    names before an image is read. A `curated` stage is also made from what people decided about the
    imagined rows. When any of these changes the stage is stale. Of several processes all do the work of a
    `shared` stage together, and the first one alone that of any other. One that is `beside` may be done by a
    second process of the machine, while the first one does another; a `narrow` one cannot use all of its
    cores.
    """

    name: str
    work: Callable[[Job], Json]
    after: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    facts: Callable[[], Json] = dict
    shared: bool = False
    beside: bool = False
    narrow: bool = False
    curated: bool = False
