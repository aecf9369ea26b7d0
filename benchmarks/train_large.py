"""Training a ResNet-50 of 224 pixels on a GPU, from JPEG files of 500 x 375 pixels and from memory.

oodream's loop stands beside a bare PyTorch loop whose images are in the GPU's memory, and beside one that
takes its batches from oodream's loader. On a CPU there is nothing to measure, but it can be tried.

python benchmarks/train_large.py --device cuda
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from _bench import Row, Setting, alone, clock, profiled
from PIL import Image
from torch import Tensor
from train import Batches, Task, bare, cross_entropy, floor_of, from_memory, ours

from oodream.config import Optimisation
from oodream.core.ahead import ahead
from oodream.data import images
from oodream.data.images import from_array, from_files
from oodream.training.batches import epoch_batches
from oodream.training.sources import Source

__all__ = ["LINES"]


def photographs(folder: Path, n: int) -> list[Path]:
    """JPEG files of 500 x 375 pixels, about as large as ImageNet's."""
    folder.mkdir(parents=True, exist_ok=True)

    def save(i: int) -> Path:
        g, file = np.random.default_rng(i), folder / f"{i:05}.jpg"
        blobs = Image.fromarray(g.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375))
        pixels = np.asarray(blobs).astype(np.int16) + g.integers(-20, 21, (375, 500, 1), dtype=np.int16)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        return file

    with ThreadPoolExecutor() as pool:
        return list(pool.map(save, range(n)))


@dataclass(frozen=True, kw_only=True)
class Loops:
    """A task and the loops that stand beside each other; `images_D` and `y_D` are on the device."""

    task: Task
    device: torch.device
    images_D: Tensor
    y_D: Tensor

    def bare(self, batches: Batches, task: Task) -> None:
        """A bare loop over batches, as many as the task has."""
        network = task.network(self.device)
        bare(network, batches, task.config, task.steps, self.device, cross_entropy)

    def resident(self, task: Task) -> None:
        """The bare loop over images in the device's memory."""
        self.bare(from_memory(task, self.images_D, self.y_D), task)

    def brief(self) -> Task:
        """Four batches of the task, to get ready and to profile."""
        n = min(4 * self.task.config.batch, len(self.task.known))
        return replace(self.task, known=self.task.known.subset(torch.arange(n)))

    def row(
        self,
        what: str,
        work: Callable[[], object],
        reference: str = "",
        its: float = 0.0,
        trains: bool = True,
    ) -> Row:
        """One way to train, or to load alone."""
        rate = self.task.steps * self.task.config.batch / clock(work, self.device)
        words, limit = floor_of(self.task, self.device)
        return Row(
            what=what,
            value=rate,
            unit="images a second",
            reference=reference,
            ratio=rate / its if its else None,
            floor=words if trains else "",
            share=rate / limit if trains else None,
        )


def prepared(setting: Setting, in_files: bool) -> Loops:
    """The loops, warm. Pictures are read from their files every time, or are in the machine's memory."""
    gpu = ("resnet50-224", 224, 1000, 256, 2048, 4096 if in_files else 32_768)
    name, size, classes, batch, n, rows = setting.pick(None, gpu, ("resnet8", 32, 10, 16, 32, 64))
    config = Optimisation(epochs=1, batch=batch, min_area=0.25)
    y, names = torch.arange(n) % classes, [str(c) for c in range(classes)]
    if in_files:
        with patch.object(images, "IN_MEMORY", 0):  # as of a set that is larger
            known = from_files("photographs", photographs(setting.room, n), y.tolist(), names, size)
        pixels = known.batch(range(n))
    else:
        pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)
        known = from_array("memory", pixels, y, names)
    known = known.subset(torch.arange(rows) % n)
    images_D, y_D = (x.to(setting.device)[torch.arange(rows) % n] for x in (pixels, y))
    task = Task(name=name, known=known, config=config, classes=classes)
    loops = Loops(task=task, device=setting.device, images_D=images_D, y_D=y_D)
    ours(loops.brief(), setting.device), loops.resident(loops.brief())  # warm
    return loops


def from_ram(setting: Setting) -> Iterator[Row]:
    if not (setting.cuda or setting.tiny):
        return
    loops = prepared(setting, in_files=False)
    plain = loops.row(
        "ResNet-50, 224 px, bare loop, images in GPU memory", lambda: loops.resident(loops.task)
    )
    yield plain
    yield loops.row(
        "ResNet-50, 224 px, oodream, images in the machine's memory",
        lambda: ours(loops.task, loops.device),
        "the bare loop, images in GPU memory",
        plain.value,
    )
    profiled("training-224", lambda: ours(loops.brief(), loops.device), setting)


def from_jpeg(setting: Setting) -> Iterator[Row]:
    if not (setting.cuda or setting.tiny):
        return
    loops = prepared(setting, in_files=True)
    sources = [Source(role="known", data=loops.task.known)]

    def loaded() -> Batches:
        for part in ahead(epoch_batches(sources, loops.task.config, 0, 0, device=loops.device)):
            yield part.images_B3HW, part.y_B

    yield loops.row("oodream's loader alone, JPEG files", lambda: [None for _ in loaded()], trains=False)
    fed = loops.row(
        "ResNet-50, 224 px, bare loop, oodream's loader", lambda: loops.bare(loaded(), loops.task)
    )
    yield fed
    yield loops.row(
        "ResNet-50, 224 px, oodream, JPEG files",
        lambda: ours(loops.task, loops.device),
        "the bare loop with the same loader",
        fed.value,
    )
    profiled("files-224", lambda: ours(loops.brief(), loops.device), setting)


LINES = {"training-224": from_ram, "files-224": from_jpeg}

if __name__ == "__main__":
    alone(LINES)
