"""Quick, Draw! by name: drawings in the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..doodles import DOODLES_KNOWN, DOODLES_NEAR, DOODLES_WORLD, doodle_arrays, doodles
from ..images import Images, ImageSet
from ..listing import Listing, pixel_listing
from .base import NamedData

__all__ = ["Doodles"]


@dataclass(frozen=True, kw_only=True)
class Doodles(NamedData):
    """42 known things; 71 relatives of theirs are near-OOD, and 201 other things are the world."""

    near_classes: tuple[str, ...] = DOODLES_NEAR

    def listings(self, root: Path | None) -> tuple[Listing, Listing]:
        """(training, test) drawings: 80 and 20 of each known thing."""
        train, test = (
            pixel_listing(f"doodles-{split}", *doodle_arrays(DOODLES_KNOWN, split), DOODLES_KNOWN)
            for split in ("train", "test")
        )
        return train, test

    def near(self, root: Path | None, size: int) -> list[ImageSet]:
        """All drawings of the relatives."""
        images = doodles(DOODLES_NEAR, size).as_ood("near")
        about = "drawings of the known things' relatives: a dog beside the cat, a violin beside the guitar"
        return [ImageSet(name="near", group="near", images=images, about=about)]

    def world(self, root: Path | None, size: int) -> Images:
        """All drawings of the other things."""
        return doodles(DOODLES_WORLD, size)
