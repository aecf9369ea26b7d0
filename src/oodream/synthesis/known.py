"""What a decoder may look at besides vectors: a run's known images and its baseline classifier. And the
protocol of decoders that do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from ..core.types import Decoder, Generated, Json, SampledVectors
from ..data.images import Images

__all__ = ["Known", "KnownDecoder", "begun_at", "draw_plainly", "is_guided"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """The known images, labelled as the decoder's classes, and the classifier that was trained on them alone.

    Both are read when they are first asked for.
    """

    images: Callable[[], Images]
    baseline: Callable[[], nn.Module]


@runtime_checkable
class KnownDecoder(Decoder, Protocol):
    """A decoder that begins at known images or is guided by their classifier. `with_known` returns it with
    them, before it draws; it raises ValueError where they do not serve.

    `guided`, which is its class's, says whether it asks for the classifier, which is then trained before
    anything is drawn.
    `begins_at` gives the rows (B,) of the known images that images of these classes and seeds begin at; None
    where they begin at noise. `plainly` draws vectors as a decoder does that looks at nothing else.
    """

    guided: ClassVar[bool]

    def with_known(self, known: Known) -> Decoder: ...

    def begins_at(self, y_B: Tensor, seed_B: Tensor) -> Tensor | None: ...

    def plainly(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated: ...


def is_guided(kind: Callable[..., Decoder]) -> bool:
    """Whether decoders of a class, or of a function that makes them, need the baseline classifier."""
    return bool(getattr(kind, "guided", False))


def draw_plainly(decoder: Decoder) -> Callable[[Tensor, Tensor, Tensor], Generated]:
    """What draws vectors, and nothing but them, by the decoder's networks."""
    return decoder.plainly if isinstance(decoder, KnownDecoder) else decoder


def begun_at(decoder: Decoder, vectors: SampledVectors, files: Sequence[str]) -> list[Json]:
    """For each row, which of `files` (the known images') its image begins at, as provenance; an empty entry
    where it begins at noise.
    """
    rows = decoder.begins_at(vectors.y_M, vectors.seed_M) if isinstance(decoder, KnownDecoder) else None
    if rows is None:
        return [{} for _ in range(len(vectors))]
    return [{"anchor": files[row], "anchor_index": row} for row in rows.tolist()]
