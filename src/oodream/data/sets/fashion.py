"""Fashion-MNIST by name: the sample in the package, and the whole set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..builtin import FASHION_ID, FASHION_NEAR, NEAR, fashion, fashion_arrays
from ..images import ImageSet
from ..listing import Listing, pixel_listing
from .base import NamedData

__all__ = ["Fashion"]


@dataclass(frozen=True, kw_only=True)
class Fashion(NamedData):
    """Eight known classes; bags and ankle boots are near-OOD. `full` reads the whole set, not the sample."""

    full: bool = False
    holds: str = "the IDX files of Fashion-MNIST"
    near_classes: tuple[str, ...] = FASHION_NEAR

    def listings(self, root: Path | None) -> tuple[Listing, Listing]:
        """(training, test) pictures, as `builtin.fashion_arrays` finds them."""
        train, test = (
            pixel_listing(f"fashion-{split}", *fashion_arrays(split, FASHION_ID, root, self.full), FASHION_ID)
            for split in ("train", "test")
        )
        return train, test

    def near(self, root: Path | None, size: int) -> list[ImageSet]:
        """Bags and ankle boots of the test split."""
        images = fashion("test", FASHION_NEAR, root, size, self.full).as_ood("near")
        return [ImageSet(name="near", group="near", images=images, about=NEAR)]
