"""Fine detail, which decoders lose: lent to decoded images by known ones, so that its lack says nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.images import Images
from .augment import Share

__all__ = ["Detail"]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What an autoencoder loses of known images: `known` less `reconstructed`, row by row.

    Decoded images lack it whatever they show. Where each has that of a random known image, those of other
    things and reconstructions of known ones alike, a classifier cannot tell imagined images by it.
    """

    known: Images
    reconstructed: Images

    def __post_init__(self) -> None:
        if len(self.known) != len(self.reconstructed):
            raise ValueError(
                f"Each known image needs its reconstruction, and there are {len(self.known)} of the ones and "
                f"{len(self.reconstructed)} of the others."
            )

    def __call__(self, images_B3HW: Tensor, g: torch.Generator, share: Share | None = None) -> Tensor:
        """The images, uint8 in and out, each with the detail of a random known image. They are a `share` of a
        batch, or all of it.
        """
        share = share or Share(total=len(images_B3HW))
        rows = share(torch.randint(len(self.known), (share.total,), generator=g))
        lost = self.known.batch(rows).int() - self.reconstructed.batch(rows).int()
        return (images_B3HW.int() + lost).clamp(0, 255).to(torch.uint8)
