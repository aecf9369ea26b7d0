"""Work on images in batches of one fixed size, which memory holds."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ...core import memory
from ...core.memory import out_of_memory
from ...core.parallel import side_by_side
from ..errors import DecoderError

__all__ = ["Tiled"]

LARGEST = 64  # more images at once are not faster


class Tiled(ABC):
    """A decoder that works on `tile` images at a time on its `device`; 0 stands for `largest_tile`.

    The last tile is filled up, because the last bits of a matrix product depend on its shape. `at_once` tiles
    are worked on side by side, each on one thread; 1 leaves a tile to all threads. When memory does not hold
    them, they are made one after the other. When it does not hold one, a tile is halved with a warning; a
    single image is tried once more after `save_memory`.
    """

    tile: int
    at_once: int = 1
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
        (one, two), free, tile = used, 0.8 * memory.free(self.device) / self.at_once, LARGEST
        while tile > 1 and one + (tile - 1) * max(0, two - one) > free:
            tile //= 2
        return tile

    def tiled(self, n: int, work: Callable[[Tensor], Tensor], nothing: Tensor) -> Tensor:
        """`work` on rows 0…n-1, `tile` rows at a time, joined to `nothing`, on the CPU.

        Raises DecoderError where memory holds no single image.
        """
        self.tile = self.tile or self.largest_tile()
        parts, start = [nothing], 0

        def tile(rows: Tensor) -> Tensor:
            padded = torch.cat([rows, rows[:1].expand(self.tile - len(rows))])
            return work(padded)[: len(rows)].cpu()

        while start < n:
            tiles = torch.arange(start, n).split(self.tile)
            try:
                for part in side_by_side(tile, tiles, self.at_once):
                    parts.append(part)
                    start += len(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._spare(error)
        return torch.cat(parts)

    def _spare(self, error: BaseException) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.at_once > 1:
            self.at_once = 1
        elif self.tile > 1:
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
