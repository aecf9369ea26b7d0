"""What a run holds in memory does not grow with its rows, but for a few bytes of each."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from oodream.core.distributed import Shard
from oodream.run.generated import SHARD, ImageFiles, LatentShards
from oodream.run.reading import Lines
from oodream.run.stages.images import record
from tests.helpers.vectors import sampled

FEW, MANY = 2048, 16384
NAMES = ("red fox", "owl")
Work = Callable[[], object]


def shards(n: int, folder: Path) -> LatentShards:
    files = LatentShards(folder=folder, vectors=sampled(n, len(NAMES)))
    folder.mkdir()
    for row in range(0, n, SHARD):
        files.path(row).write_bytes(b"latents")
    return files


def recording(n: int, folder: Path) -> Work:
    files = shards(n, folder)
    return lambda: record(files, ({"row": m, "words": ["a", "b", "c"]} for m in range(n)))


def reading(n: int, folder: Path) -> Work:
    recording(n, folder)()
    return lambda: sum(1 for _ in Lines(folder / "metadata.jsonl", "images/imagined"))


def looking(n: int, folder: Path) -> Work:
    files = ImageFiles(folder=folder, vectors=sampled(n, len(NAMES)), names=NAMES)
    decoder = SimpleNamespace(tile=64)
    return lambda: files.missing(Shard(), decoder)  # type: ignore[arg-type]


def most(work: Work) -> int:
    """The most bytes that Python's objects take while it works."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("step", "each"), [(recording, 1), (reading, 8), (looking, 64)])
def test_a_row_takes_a_few_bytes(step, each, tmp_path):
    """While they are recorded, while a record is read, and while it is looked which files there are."""
    step(FEW, tmp_path / "warm")()
    few, many = most(step(FEW, tmp_path / "few")), most(step(MANY, tmp_path / "many"))
    assert many - few < each * (MANY - FEW) + 50_000
