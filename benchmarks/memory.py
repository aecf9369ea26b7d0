"""By how much memory grows with the number of outliers, for every step that handles them: 1,000, 10,000 and
100,000.

Each step is a process of its own, which first does its work with a few outliers, and then with all: what
grows then is the number's doing. Pictures of 32 pixels are drawn by a decoder that takes no time, and every
program reads what the one before it wrote. The floor is what the vectors themselves take, 128 numbers each,
or the pictures that training keeps.

python benchmarks/memory.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from _bench import Row, Setting, alone
from torch import Tensor
from torch.nn.functional import normalize

from oodream.config import DecodeConfig, Optimisation, SampleConfig
from oodream.core.registry import make
from oodream.core.types import ClassBook, Features, Generated, SampledVectors, Sizes
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import from_files
from oodream.models.factory import backbone
from oodream.run.generated import ImageFiles
from oodream.run.stages.images import decode_vectors
from oodream.synthesis.sample import sample
from oodream.training.loop import fit
from oodream.training.sources import Source

__all__ = ["LINES"]

WIDTH, CLASSES, SIZE, FEW = 128, len(FASHION_ID), 32, 80
CPU = torch.device("cpu")
G = torch.Generator().manual_seed(0)
TOKENS = normalize(torch.randn(CLASSES, WIDTH, generator=G), dim=1)
BOOK = ClassBook(names=FASHION_ID, prompts=FASHION_ID, tokens_CD=TOKENS, space="benchmark")
Y = torch.arange(CLASSES).repeat_interleave(100)
FEATURES = Features(
    z_ND=normalize(TOKENS[Y] + torch.randn(len(Y), WIDTH, generator=G) / WIDTH**0.5, dim=1),
    y_N=Y,
    index_N=torch.arange(len(Y)),
    encoder="benchmark",
)


class Colours:
    """A decoder that takes no time: every picture has one colour."""

    book, tile, fingerprint = BOOK, 64, "colours"

    def __call__(self, z_BD: Tensor, y_B: Tensor, seed_B: Tensor) -> Generated:
        images = (seed_B % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, SIZE, SIZE)
        return Generated(images_B3HW=images, y_B=y_B, row_B=torch.arange(len(y_B)))

    def neighbours(self, z_MD: Tensor, n: int = 3) -> list[list[str]]:
        return [["a", "b", "c"]] * len(z_MD)


def vectors(n: int) -> SampledVectors:
    config = SampleConfig(per_class=n // CLASSES, options={"candidates": 50, "k": 20})
    return sample(FEATURES, BOOK, config, 0)


def decode(n: int, folder: Path) -> None:
    """The stage that draws and records."""
    drawn = vectors(n)
    files = ImageFiles(folder=folder / f"{n}", vectors=drawn, names=FASHION_ID)
    run = SimpleNamespace(vectors=drawn, features=FEATURES, book=BOOK, files=files)
    known = SimpleNamespace(train=SimpleNamespace(files=tuple(f"{i}.png" for i in range(len(Y)))))
    decode_vectors(  # type: ignore[arg-type]
        SimpleNamespace(
            run=run,
            decoder=Colours(),
            inputs=known,
            device=CPU,
            config=SimpleNamespace(decode=DecodeConfig()),
        )
    )


def train(n: int, folder: Path) -> None:
    """Twenty steps beside all of them."""
    paths = sorted((folder / f"{n}").rglob("*.png"))
    outliers = from_files("outliers", paths, [-1] * len(paths), (), SIZE)
    known = fashion("train", FASHION_ID, size=SIZE).subset(torch.arange(640))
    loss = make("losses", "energy_logistic")
    loss.build(Sizes(features=128, classes=CLASSES))
    sources = [Source(role="known", data=known), Source(role="outlier", data=outliers, outlier_aug_prob=0.5)]
    config = Optimisation(epochs=4, batch=128)
    fit(backbone("resnet8", CLASSES), loss, sources, config, 0, CPU, folder / "state", "benchmark")


STEPS: dict[str, tuple[str, Callable[[int, Path], object], int]] = {
    "sample": ("sampling vectors", lambda n, folder: vectors(n), 4 * WIDTH),
    "decode": ("drawing and recording pictures", decode, 4 * WIDTH),
    "train": ("training beside pictures from files", train, 3 * SIZE**2),
}


def child(step: str, n: str, folder: str) -> None:
    """Prints by how many MiB the resident set grows at most beyond what a few outliers take."""
    torch.set_num_threads(1)
    _, work, _ = STEPS[step]
    (Path(folder) / "few").mkdir(exist_ok=True)
    if step == "train":
        decode(FEW, Path(folder) / "few")
    work(FEW, Path(folder) / "few")
    process, largest, done = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.02):
            largest[0] = max(largest[0], process.memory_info().rss)

    threading.Thread(target=watch).start()
    try:
        work(int(n), Path(folder))
    finally:
        done.set()
    print(json.dumps(max(0, largest[0] - start) / 2**20))


def grown(step: str, n: int, folder: Path) -> float:
    command: Sequence[str] = [sys.executable, __file__, "child", step, str(n), str(folder)]
    return float(
        json.loads(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
    )


def memory(setting: Setting) -> Iterator[Row]:
    numbers = setting.pick((1_000, 10_000, 100_000), (1_000, 10_000, 100_000), (400, 800))
    for step, (what, _, bytes_each) in STEPS.items():
        sizes = {n: grown(step, n, setting.room) for n in numbers}
        least = max(numbers) * bytes_each / 2**20
        yield Row(
            what=f"{what}, {max(numbers):,} outliers",
            value=sizes[max(numbers)],
            unit="MiB more than for a few",
            floor=f"{bytes_each:,} bytes of each in memory, {least:.0f} MiB",
            more=", ".join(f"{size:.0f} MiB at {n:,}" for n, size in sizes.items()),
        )


LINES = {"memory": memory}

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
    else:
        alone(LINES)
