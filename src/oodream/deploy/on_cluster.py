"""`oodream score --engine ray`: the workers of a cluster answer, each a part of the pictures at a time.

Workers need no disk in common: each is sent the predictor's files, and then pictures, but for those of a
bucket, which it fetches itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.cluster import Cluster
from ..core.device import device_of
from ..core.errors import StoreError
from ..core.files import write_bytes
from ..core.types import Json
from ..data.stream import NamedBytes, Pictures, Source
from ..models.classifier import Classifier
from .guard import Guard, predictor_of
from .resumed import Answering, in_parts
from .scoring import answers
from .tables import row_of

__all__ = ["answering_on"]

Named = tuple[str, Source]


def answering_on(cluster: Cluster, predictor: Guard | Classifier, device: str, plugins: bool) -> Answering:
    """Has the workers of a cluster answer, as `resumed.answer_parts` does here."""
    with tempfile.TemporaryDirectory() as folder:
        predictor.save(Path(folder))
        files = {file.name: file.read_bytes() for file in Path(folder).iterdir()}
    opening = _Opening(files, predictor.identity(), device, plugins)

    def answered(pictures: Pictures, missing: Sequence[int]) -> Iterator[tuple[int, list[Json]]]:
        tasks = ((i, list(map(_sent, part))) for i, part in in_parts(pictures, missing))
        for (i, _), rows in cluster.map(opening, tasks):
            yield i, rows

    return answered


def _sent(picture: Named) -> Named:
    """A picture as it is sent: the bytes of its file. One that cannot be read here will not be there,
    either.
    """
    name, source = picture
    try:
        return name, NamedBytes(str(source), source.read_bytes()) if isinstance(source, Path) else source
    except OSError:
        return picture


@dataclass(frozen=True)
class _Opening:
    """Opens the predictor from its files, on another machine."""

    files: Mapping[str, bytes]
    identity: Json
    device: str
    plugins: bool

    def __call__(self) -> _Answerer:
        with tempfile.TemporaryDirectory(prefix="oodream-") as place:
            for name, data in self.files.items():
                write_bytes(Path(place) / name, data, sync=False)
            predictor = predictor_of(Path(place), "", self.plugins)
        if predictor.identity() != self.identity:
            raise StoreError("A worker of the cluster reads another guard than this machine sent to it.")
        predictor.network.to(device_of(self.device))
        return _Answerer(predictor)


@dataclass(frozen=True)
class _Answerer:
    """Answers on another machine."""

    predictor: Guard | Classifier

    def __call__(self, task: tuple[int, list[Named]]) -> list[Json]:
        return [row_of(name, answer) for name, answer in answers(self.predictor, task[1])]
