"""By how much memory grows with the number of outliers, for every step of a run that handles them: from 1,000
to 10,000 and 100,000.

Each step is a process of its own, which first does its work with 1,000 outliers, and then with all: by how
much the most that it holds is more then, is the number's doing. Steps are the stages of a run, and each
reads what the one before it wrote. Pictures of 32 pixels are drawn by a decoder that takes no time. The
floor is what the vectors themselves take, 128 numbers each, or the pictures that are kept in memory. It needs
Linux, which knows how much a process has held.

python benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _bench import Row, Setting, alone
from torch import Tensor
from torch.nn.functional import normalize

from oodream.config import Config, Optimisation, SampleConfig
from oodream.core.files import write_json
from oodream.core.registry import make
from oodream.core.tensors import save_tensors
from oodream.core.types import ClassBook, Generated, Sizes
from oodream.data.builtin import FASHION_ID, fashion
from oodream.models.factory import backbone
from oodream.run.artifacts import Run
from oodream.run.layout import imagined_stage
from oodream.run.sources import kept_rows
from oodream.run.stages.images import decode_vectors, filter_images
from oodream.run.stages.vectors import sample_vectors
from oodream.training.loop import fit
from oodream.training.sources import Source

__all__ = ["LINES"]

WIDTH, CLASSES, SIZE, FEW = 128, len(FASHION_ID), 32, 1000
CPU = torch.device("cpu")
G = torch.Generator().manual_seed(0)
TOKENS = normalize(torch.randn(CLASSES, WIDTH, generator=G), dim=1)
BOOK = ClassBook(names=FASHION_ID, prompts=FASHION_ID, tokens_CD=TOKENS, space="benchmark")
Y = torch.arange(CLASSES).repeat_interleave(100)
FEATURES = {
    "z_ND": normalize(TOKENS[Y] + torch.randn(len(Y), WIDTH, generator=G) / WIDTH**0.5, dim=1),
    "y_N": Y,
    "index_N": torch.arange(len(Y)),
}


class Colours:
    """A decoder that takes no time: every picture has one colour."""

    book, tile, fingerprint = BOOK, 64, "colours"

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        images = (seed_B % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def neighbours(self, z_MD: Tensor, n: int = 3) -> list[list[str]]:
        return [["a", "b", "c"]] * len(z_MD)


def job(n: int, folder: Path) -> Any:
    """A run of n outliers in a folder of its own, as its stages see it."""
    sample = SampleConfig(per_class=n // CLASSES, options={"candidates": 50, "k": 20})
    config = replace(Config(), size=SIZE, sample=sample)
    run = Run(folder / f"{n}", config)
    if not run.layout.features.exists():
        save_tensors(run.layout.class_vectors, {"tokens_CD": TOKENS})
        book = {"names": BOOK.names, "prompts": BOOK.prompts, "space": BOOK.space, "tile": Colours.tile}
        write_json(run.layout.classes, book)
        save_tensors(run.layout.features, FEATURES)
    run.classifier = lambda *_: SimpleNamespace(network=backbone("resnet8", CLASSES))  # type: ignore
    known = SimpleNamespace(files=tuple(f"{i}.png" for i in range(len(Y))))
    return SimpleNamespace(
        run=run, layout=run.layout, config=config, book=BOOK, words=None, decoder=Colours(), device=CPU,
        inputs=SimpleNamespace(train=known),
    )  # fmt: skip


def draw(work: Any) -> None:
    """The stage that draws and records, with its stamp."""
    summary = decode_vectors(work)
    work.run.folder.finish(imagined_stage("images"), {}, 1.0, summary)


def read(work: Any) -> None:
    """What each row was made from, one after the other."""
    for line in work.run.provenance:
        assert line["seed"] is not None


def train(work: Any) -> None:
    """Twenty steps beside all that stay."""
    rows = kept_rows(work.run)
    outliers = Source(role="outlier", data=work.run.images.subset(rows), outlier_aug_prob=0.5)
    known = Source(role="known", data=fashion("train", FASHION_ID, size=SIZE).subset(torch.arange(640)))
    loss = make("losses", "energy_logistic")
    loss.build(Sizes(features=128, classes=CLASSES))
    config, state = Optimisation(epochs=4, batch=128), work.layout.resume_state("benchmark")
    fit(backbone("resnet8", CLASSES), loss, [known, outliers], config, 0, CPU, state, "benchmark")


STEPS: dict[str, tuple[str, Callable[[Any], object], str, int]] = {
    "sample": ("sampling vectors", sample_vectors, "their vectors", 4 * WIDTH),
    "draw": ("drawing and recording pictures", draw, "their vectors", 4 * WIDTH),
    "read": ("reading what each was made from", read, "where lines begin", 8),
    "filter": ("filtering pictures", filter_images, "their pictures", 3 * SIZE**2),
    "train": ("training beside pictures from files", train, "their pictures", 3 * SIZE**2),
}


def child(step: str, n: str, folder: str) -> None:
    """Prints by how many MiB the most that this process holds is more than for a few outliers."""
    torch.set_num_threads(1)
    before = [*STEPS][: [*STEPS].index(step) + 1]
    for room in ("warm", "few"):
        few = [held(name, FEW, Path(folder) / room / step) for name in before][-1]
    print(json.dumps(max(0, held(step, int(n), Path(folder)) - few) / 2**10))


def held(step: str, n: int, folder: Path) -> int:
    """The most kB that a step holds."""
    Path("/proc/self/clear_refs").write_text("5")  # what was held before does not count
    STEPS[step][1](job(n, folder))
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def grown(step: str, n: int, folder: Path) -> float:
    command: Sequence[str] = [sys.executable, __file__, "child", step, str(n), str(folder)]
    return float(
        json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    )


def memory(setting: Setting) -> Iterator[Row]:
    numbers = setting.pick((10_000, 100_000), (10_000, 100_000), (2_000, 4_000))
    for step, (what, _, kept, bytes_each) in STEPS.items():
        sizes = {n: grown(step, n, setting.room) for n in numbers}
        least = (max(numbers) - FEW) * bytes_each / 2**20
        yield Row(
            what=f"{what}, {max(numbers):,} outliers",
            value=sizes[max(numbers)],
            unit=f"MiB more than for {FEW:,}",
            floor=f"{kept}, {bytes_each:,} bytes each: {least:.0f} MiB",
            more=", ".join(f"{size:.0f} MiB at {n:,}" for n, size in sizes.items()),
        )


LINES = {"memory": memory}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        alone(LINES)
