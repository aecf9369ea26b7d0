"""Training and alignment, against a bare PyTorch loop: the same network, precision, optimiser, batches and
augmentation, and nothing else.

A resnet8 of 32 pixels trains on garments: the baseline, one with outliers beside (energy_logistic), and the
encoder of alignment. The bare loop has its images in the device's memory.

python benchmarks/train.py
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from _bench import Row, Setting, alone, flops, profiled, turns
from torch import Tensor, nn
from torch.nn import functional as F

from oodream.config import AlignConfig, Optimisation
from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import ClassBook, Sizes
from oodream.data.builtin import FASHION_ID, fashion
from oodream.data.images import Images
from oodream.models.factory import backbone
from oodream.models.inference import cost
from oodream.presets import PRESETS
from oodream.synthesis.align import align, untrained_encoder
from oodream.training.augment import augment, vary
from oodream.training.loop import autocast, fit, one_cycle, sgd
from oodream.training.sources import Source

__all__ = ["LINES", "Batches", "Task", "bare", "cross_entropy", "floor_of", "from_memory", "ours"]

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits, features and labels


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained, by both loops. `known` may lie in files; `outliers` stand beside every batch."""

    name: str
    known: Images
    config: Optimisation
    outliers: Images | None = None
    classes: int = 8

    @property
    def steps(self) -> int:
        return len(self.known) // self.config.batch * self.config.epochs

    def network(self, device: torch.device) -> nn.Module:
        with seeded(0, "benchmark"):
            return backbone(self.name, self.classes).to(device).train()


def ours(task: Task, device: torch.device) -> None:
    """oodream's loop."""
    sources = [Source(role="known", data=task.known)]
    loss = make("losses", "energy_logistic" if task.outliers else "cross_entropy")
    if task.outliers:
        sources.append(Source(role="outlier", data=task.outliers, outlier_aug_prob=0.5))
        loss.build(Sizes(features=128, classes=task.classes))
    with tempfile.TemporaryDirectory() as room:
        fit(task.network(device), loss, sources, task.config, 0, device, Path(room) / "state", "benchmark")


def bare(
    network: nn.Module,
    batches: Batches,
    config: Optimisation,
    steps: int,
    device: torch.device,
    loss: Loss,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """A loop as one writes it for a single training."""
    optimizer = optimizer or sgd(network.parameters(), config)
    for step, (images, y) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * one_cycle((step + 1) / steps)
        with autocast(config.precision, device):
            output = network(images)
        value = loss(output.logits_BC.float(), output.z_BF.float(), y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert math.isfinite(value.item())


def from_memory(task: Task, images: Tensor, y: Tensor, others: Tensor | None = None) -> Batches:
    """Batches of tensors on the device, augmented there; outliers, half of them varied, come last."""
    g = torch.Generator().manual_seed(0)
    for _ in range(task.config.epochs):
        for rows in torch.randperm(len(images), generator=g).split(task.config.batch)[
            : task.steps // task.config.epochs
        ]:
            batch = images[rows.to(images.device)]
            if others is not None:
                beside = others[torch.randint(len(others), (len(rows),), generator=g)]
                beside = vary(torch.zeros(len(rows), dtype=torch.bool), 0.5, g)(beside)
                batch = torch.cat([batch, beside])
            yield augment(batch, task.config, g), y[rows.to(y.device)]


def cross_entropy(logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y)


class Energy(nn.Module):
    """energy_logistic, written out for one training."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset = nn.Parameter(torch.tensor(0.5413)), nn.Parameter(torch.tensor(0.0))

    def forward(self, logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
        phi = F.softplus(self.slope) * logits.logsumexp(1) + self.offset
        own, other = phi.tensor_split([len(y)])
        return F.cross_entropy(logits[: len(y)], y) + 0.5 * (
            F.softplus(-own).mean() + F.softplus(other).mean()
        )


def floor_of(task: Task, device: torch.device) -> tuple[str, float]:
    """In words, and images a second."""
    operations = 3 * cost(task.network(device), task.known.size)[1] * (2 if task.outliers else 1)
    bf16 = not isinstance(autocast(task.config.precision, device), type(autocast("fp32", device)))
    rate = flops(device, torch.bfloat16 if bf16 else torch.float32)
    words = f"{operations / 1e9:.3g} GFLOP an image, as {'bfloat16' if bf16 else 'float32'} matrix products"
    return words, rate / operations


def training(setting: Setting) -> Iterator[Row]:
    config = PRESETS["demo"].config.train.optimisation
    n, rounds = setting.pick((3840, 5), (3840, 3), (256, 1))
    known = fashion("train", FASHION_ID, size=32)
    known = known.subset(torch.arange(min(n, len(known)) // config.batch * config.batch))
    config = replace(config, epochs=1, min_steps=0)
    plain = Task(name="resnet8", known=known, config=config)
    beside = replace(plain, outliers=fashion("test", FASHION_ID, size=32).as_ood())
    images, y = (x.to(setting.device) for x in (known.batch(range(len(known))), known.labels))
    for task, words in ((plain, "baseline"), (beside, "with outliers")):
        others = (
            None
            if task.outliers is None
            else task.outliers.batch(range(len(task.outliers))).to(setting.device)
        )

        def loop(task: Task = task, others: Tensor | None = others) -> None:
            network, loss = task.network(setting.device), Energy() if task.outliers else cross_entropy
            parts = nn.ModuleList(
                [network, *([loss.to(setting.device)] if isinstance(loss, nn.Module) else [])]
            )
            bare(
                network,
                from_memory(task, images, y, others),
                task.config,
                task.steps,
                setting.device,
                loss,
                sgd(parts.parameters(), task.config),
            )

        yield versus_bare(
            f"resnet8, 32 px, {words}", task, partial(ours, task, setting.device), loop, rounds, setting
        )
    if setting.tiny:
        profiled("training", partial(ours, beside, setting.device), setting)


def versus_bare(
    what: str,
    task: Task,
    program: Callable[[], object],
    loop: Callable[[], object],
    rounds: int,
    setting: Setting,
) -> Row:
    """Both loops in turns."""
    program(), loop()  # warm
    times = turns({"ours": program, "bare": loop}, rounds, setting.device)
    n, (words, limit) = task.steps * task.config.batch, floor_of(task, setting.device)
    return Row(
        what=what,
        value=n / times["ours"],
        unit="images a second",
        reference="a bare PyTorch loop",
        ratio=times["bare"] / times["ours"],
        floor=words,
        share=n / times["ours"] / limit,
    )


def alignment(setting: Setting) -> Iterator[Row]:
    """The encoder into the space of class vectors."""
    n, rounds = setting.pick((3840, 5), (3840, 3), (256, 1))
    known = fashion("train", FASHION_ID, size=32)
    config = replace(AlignConfig().optimisation, epochs=1)
    known = known.subset(torch.arange(min(n, len(known)) // config.batch * config.batch))
    task = Task(name="resnet8", known=known, config=config)
    g = torch.Generator().manual_seed(0)
    tokens = F.normalize(torch.randn(len(FASHION_ID), 64, generator=g), dim=1)
    book = ClassBook(names=FASHION_ID, prompts=FASHION_ID, tokens_CD=tokens, space="benchmark")
    images, y = (x.to(setting.device) for x in (known.batch(range(len(known))), known.labels))
    options = AlignConfig(optimisation=config)

    def program() -> None:
        with tempfile.TemporaryDirectory() as room:
            align(known, book, options, 0, setting.device, Path(room) / "state")

    def pulled(logits: Tensor, z: Tensor, y: Tensor) -> Tensor:
        cosine = options.temperature * logits.gather(1, y[:, None])[:, 0]
        return F.cross_entropy(logits, y) + options.pull * (1 - cosine).mean()

    def loop() -> None:
        encoder = untrained_encoder(book, options, 0).to(setting.device)
        bare(encoder, from_memory(task, images, y), config, task.steps, setting.device, pulled)

    yield versus_bare("resnet8, 32 px, alignment", task, program, loop, rounds, setting)


LINES = {"training": training, "alignment": alignment}

if __name__ == "__main__":
    alone(LINES)
