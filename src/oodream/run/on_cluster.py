"""`oodream decode --engine ray`: a run's vectors are decoded by the workers of a cluster, and their files
come back to the run's folder.

Only this machine needs the folder. Each worker is sent the few files that the decoder is made of, and then
rows with their vectors; so there is no common disk, but for a decoder that lies in a folder, or looks at
known images: these must be where the run says, on every machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.cluster import Cluster
from ..core.distributed import Shard
from ..core.files import write_bytes
from ..core.progress import counter
from ..core.types import Decoder
from .artifacts import Run
from .generated import Drawing
from .plan import drawn_after
from .redraw import BegunRun, open_decoder

__all__ = ["decode_on"]


def decode_on(cluster: Cluster, begun: BegunRun, device: str) -> int:
    """Decodes all rows that have no file yet, as `redraw.decode_shard` does on this machine; returns how
    many.
    """
    count, folder = 0, begun.run.folder
    opening = _Opening(_files(begun), device, begun.run.plugins)
    for stage, files in begun.drawn:
        if folder.is_done(stage, begun.inputs):
            continue
        folder.begin(stage, begun.inputs)
        rows = torch.tensor(files.missing(Shard(), begun.decoder), dtype=torch.long)
        parts = files.parts(rows, begun.decoder)
        with counter(total=len(parts), what=f"decode {stage}", unit="part") as line:
            for _, drawn in cluster.map(opening, map(files.drawing, parts)):
                for m, data in drawn:
                    files.write(files.path(m), data)
                line.update(1)
        count += len(rows)
    return count


def _files(begun: BegunRun) -> dict[str, bytes]:
    """The files of the run that its decoder is opened from."""
    run = begun.run
    stages = [run.layout.classes.parent, *map(run.layout.stage, drawn_after(run.config.decode)[1:])]
    files = [run.layout.manifest, *(file for stage in stages for file in stage.rglob("*") if file.is_file())]
    return {file.relative_to(run.folder.path).as_posix(): file.read_bytes() for file in files}


@dataclass(frozen=True)
class _Opening:
    """Opens the decoder of a run from its files, on another machine."""

    files: Mapping[str, bytes]
    device: str
    plugins: bool

    def __call__(self) -> _Drawer:
        place = tempfile.TemporaryDirectory(prefix="oodream-")
        for name, data in self.files.items():
            write_bytes(Path(place.name) / name, data, sync=False)
        return _Drawer(open_decoder(Run.open(place.name, self.plugins), self.device), place)


@dataclass(frozen=True)
class _Drawer:
    """Draws on another machine."""

    decoder: Decoder
    place: tempfile.TemporaryDirectory[str]  # it is removed with this object

    def __call__(self, drawing: Drawing) -> list[tuple[int, bytes]]:
        return list(drawing(self.decoder))
