"""Many pictures through a guard or a classifier: threads read the next ones while the network looks at these,
and memory does not grow with their number. A guard on a graph takes no PyTorch here.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.errors import DataError
from ..data.remote import RemotePicture
from ..data.stream import NamedBytes, Source
from ..runtime.answers import Prediction
from ..runtime.pictures import Picture, read_scaled, squares

__all__ = ["Answer", "Answerer", "answers", "answers_to", "read_or_why"]

Answer = Prediction | str  # of a picture that cannot be read: why
T = TypeVar("T")

BATCH, PIXELS = 256, 1 << 25  # pictures that are read together, at most so many and of so many bytes
AHEAD = 2  # batches that are being read while the network looks at another
THREADS = 16  # that read, at most
SHARE = 16  # pictures that one of them reads in turn: small ones take little time


class Answerer(Protocol):
    """What answers: a guard in PyTorch or on a graph, or a classifier."""

    @property
    def size(self) -> int: ...

    @property
    def white(self) -> float: ...

    def of_squares(self, images_B3SS: NDArray[np.uint8]) -> Iterator[Prediction]: ...

    def identity(self) -> dict[str, Any]: ...


def answers(
    predictor: Answerer, pictures: Iterable[tuple[str, Source]]
) -> Generator[tuple[str, Answer], None, None]:
    """The name of each picture with a prediction, or with the reason why it cannot be read, in order.

    Warns at the end, with their number, of pictures of more than 8 bits that had no scale but their own,
    because the predictor was made of 8-bit ones.
    """
    size, white, alone = predictor.size, predictor.white, deque[bool]()

    def read(source: Source) -> NDArray[np.uint8] | str:
        try:
            if isinstance(source, RemotePicture):
                source = NamedBytes(source.url, source())
            square, scaled_alone = read_scaled(source, size, white)
        except OSError as error:
            return str(error)
        if scaled_alone:
            alone.append(True)  # by several threads
        return square

    batch = max(1, min(BATCH, PIXELS // (3 * size**2)))
    batch = 1 << (batch.bit_length() - 1)  # parts of 1,024 pictures are whole batches: equal however resumed
    try:
        for part in _ahead(pictures, batch, read):
            names, read_part = zip(*part, strict=True)
            yield from zip(names, answers_to(predictor, read_part), strict=True)
    finally:  # whoever takes as many as there are does not come to an end
        if alone:
            warnings.warn(
                f"Of the pictures {len(alone):,} have more than 8 bits, and what answers was made of 8-bit "
                "ones: each is scaled by the smallest full scale that its values fit, so that the same one "
                "twice as bright may look otherwise. Ask about pictures of the depth that it was made of.",
                stacklevel=2,
            )


def answers_to(predictor: Answerer, pictures: Sequence[NDArray[np.uint8] | str]) -> list[Answer]:
    """A prediction for each square picture (S, S, 3), uint8; a reason in place of a picture stays where it
    is.
    """
    whole = [picture for picture in pictures if not isinstance(picture, str)]
    predictions: Iterator[Prediction] = iter(())
    if whole:
        predictions = predictor.of_squares(np.ascontiguousarray(np.stack(whole).transpose(0, 3, 1, 2)))
    return [picture if isinstance(picture, str) else next(predictions) for picture in pictures]


def read_or_why(picture: Picture, size: int, white: float) -> NDArray[np.uint8] | str:
    """One picture of whatever kind `Guard.predict` takes, as it reads it, or why it cannot be read."""
    try:
        return next(squares(picture, size, white))
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
