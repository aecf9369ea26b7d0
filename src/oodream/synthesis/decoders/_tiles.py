"""Work on images in batches of one fixed size, which memory holds."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ...core import memory
from ...core.memory import out_of_memory
from ..errors import DecoderError

__all__ = ["Tiled"]

LARGEST = 64  # more images at once are not faster


class Tiled(ABC):
    """A decoder that works on `tile` images at a time on its `device`; 0 stands for `largest_tile`.

    The last tile is filled up, because the last bits of a matrix product depend on its shape. When memory
    does not hold a tile, it is halved with a warning; a single image is tried once more after `save_memory`.
    """

    tile: int
    device: torch.device

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Width and height of an image while it is made, in pixels."""

    @abstractmethod
    def probe(self, n: int) -> None:
        """The work on n images, for its memory to be measured."""

    @abstractmethod
    def save_memory(self) -> bool:
        """Takes less memory for each image from here on; False where no more can be done."""

    def largest_tile(self) -> int:
        """The largest power of two, at most 64, of images that four fifths of the free memory hold.

        Memory is measured while one and while two images are made; it grows evenly from there.
        """
        used = []
        for n in (1, 2):
            try:
                with memory.Watch(self.device, every=0.005) as watch:
                    self.probe(n)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                return 1
            used.append(watch.most - watch.before)
        (one, two), free, tile = used, 0.8 * memory.free(self.device), LARGEST
        while tile > 1 and one + (tile - 1) * max(0, two - one) > free:
            tile //= 2
        return tile

    def tiled(self, n: int, work: Callable[[Tensor], Tensor], nothing: Tensor) -> Tensor:
        """`work` on rows 0…n-1, `tile` rows at a time, joined to `nothing`, on the CPU.

        Raises DecoderError where memory holds no single image.
        """
        self.tile = self.tile or self.largest_tile()
        parts, start = [nothing], 0
        while start < n:
            rows = torch.arange(start, min(start + self.tile, n))
            padded = torch.cat([rows, rows[:1].expand(self.tile - len(rows))])
            try:
                parts.append(work(padded)[: len(rows)].cpu())
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._spare(error)
            else:
                start += len(rows)
        return torch.cat(parts)

    def _spare(self, error: BaseException) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.tile > 1:
            self.tile //= 2
            warnings.warn(
                f"Memory does not hold the tile: from here on {self.tile} images are drawn together, and may "
                f"differ in their last bits from those of a larger tile. --decode.tile {self.tile} draws all "
                f"of them so.",
                stacklevel=2,
            )
        elif not self.save_memory():
            raise DecoderError(
                f"Memory does not hold the drawing of one image of {self.resolution} pixels. Use a smaller "
                f"decoder or a device with more memory."
            ) from error
