"""Many pictures through a guard or a classifier: threads read the next ones while the network looks at these,
and memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from ..core.errors import DataError
from ..data.images import from_array
from ..data.preprocess import Picture, read_image, read_pictures
from ..data.remote import RemotePicture
from ..data.stream import NamedBytes, Source
from ..models.classifier import Predictor
from ..runtime.answers import Prediction

__all__ = ["Answer", "answers", "answers_to", "read_or_why"]

Answer = Prediction | str  # of a picture that cannot be read: why
T = TypeVar("T")

BATCH, PIXELS = 256, 1 << 25  # pictures that are read together, at most so many and of so many bytes
AHEAD = 2  # batches that are being read while the network looks at another
THREADS, SHARE = (
    16,
    16,
)  # that read, at most, and pictures that one reads in turn: small ones take little time


def answers(
    predictor: Predictor, pictures: Iterable[tuple[str, Source]], device: torch.device
) -> Generator[tuple[str, Answer], None, None]:
    """The name of each picture with a prediction, or with the reason why it cannot be read, in order."""
    size, white = predictor.size, predictor.white

    def read(source: Source) -> Tensor | str:
        try:
            if isinstance(source, RemotePicture):
                source = NamedBytes(source.url, source())
            return read_image(source, size, white)
        except OSError as error:
            return str(error)

    batch = max(1, min(BATCH, PIXELS // (3 * size**2)))
    batch = 1 << (batch.bit_length() - 1)  # parts of 1,024 pictures are whole batches: equal however resumed
    for part in _ahead(pictures, batch, read):
        names, squares = zip(*part, strict=True)
        yield from zip(names, answers_to(predictor, squares, device), strict=True)


def answers_to(predictor: Predictor, squares: Sequence[Tensor | str], device: torch.device) -> list[Answer]:
    """A prediction for each square picture (3, S, S), uint8; a reason in place of a picture stays where it
    is.
    """
    whole = [square for square in squares if isinstance(square, Tensor)]
    predictions: Iterator[Prediction] = iter(())
    if whole:
        predictions = predictor(
            from_array("pictures", torch.stack(whole), torch.zeros(len(whole)), ()), device
        )
    return [square if isinstance(square, str) else next(predictions) for square in squares]


def read_or_why(picture: Picture, size: int, white: float) -> Tensor | str:
    """One picture of whatever kind `Guard.predict` takes, as it reads it, or why it cannot be read."""
    try:
        return next(read_pictures(picture, size, white))
    except DataError as error:
        return str(error)


def _ahead(
    pictures: Iterable[tuple[str, Source]], batch: int, read: Callable[[Source], T]
) -> Iterator[list[tuple[str, T]]]:
    """Batches of names with what `read` gives; threads read some batches ahead."""

    def read_all(part: Sequence[tuple[str, Source]]) -> list[tuple[str, T]]:
        return [(name, read(source)) for name, source in part]

    pictures, pending = iter(pictures), deque[list[Future[list[tuple[str, T]]]]]()
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        try:
            while True:
                while len(pending) <= AHEAD and (part := list(islice(pictures, batch))):
                    shares = (part[i : i + SHARE] for i in range(0, len(part), SHARE))
                    pending.append([pool.submit(read_all, share) for share in shares])
                if not pending:
                    return
                yield [one for future in pending.popleft() for one in future.result()]
        finally:
            pool.shutdown(cancel_futures=True)
