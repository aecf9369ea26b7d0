"""What a data set with a name is: listings of its pictures, its near-OOD sets and a world of other things."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..images import Images, ImageSet
from ..listing import Listing

__all__ = ["NamedData"]


@dataclass(frozen=True, kw_only=True)
class NamedData(ABC):
    """A data set that is chosen by a name in place of a folder.

    `root` says whether it reads a folder that the user names; `holds` says in words what lies there.
    `class_list` is the shipped class list with its prompt words and other names of its classes.
    `near_classes` are the classes that its near-OOD sets show.
    """

    about: str
    root: Literal["none", "optional", "required"] = "none"
    holds: str = ""
    class_list: str = ""
    near_classes: tuple[str, ...] = ()

    @abstractmethod
    def listings(self, root: Path | None) -> tuple[Listing, Listing]:
        """(training, test) pictures of all labelled classes, before any is opened.

        Raises DataError for whatever would not make the data set.
        """

    def files(self, root: Path) -> list[Path]:
        """The files below a root that `listings` would read."""
        return []

    def near(self, root: Path | None, size: int) -> list[ImageSet]:
        """Near-OOD test sets, of the group "near"; none unless the data set has some."""
        return []

    def world(self, root: Path | None, size: int) -> Images | None:
        """Real pictures of other things, labelled by their names, which may be trained on as outliers; None
        where the data set has none.
        """
        return None
