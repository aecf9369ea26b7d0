"""How any part of the decoder is trained: batches by weight, AdamW, a moving average of the weights, and
resuming.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...core.progress import progress
from ...core.seeding import generator
from ...core.tensors import load_state, save_state

__all__ = ["Fitting", "ahead", "batch_rows"]

T = TypeVar("T")
WARM_UP = 200
"""steps until the learning rate has risen to its peak"""


def batch_rows(weights: Tensor, n: int, seed: int, part: str, step: int) -> tuple[Tensor, torch.Generator]:
    """The rows (n,) of one step's batch, in proportion to `weights` (N,), and a generator for what else is
    random in it.
    """
    g = generator(seed, "fit-decoder", part, step)
    return torch.multinomial(weights, n, replacement=True, generator=g), g


def ahead(make: Callable[[int], T], steps: Iterable[int]) -> Iterator[T]:
    """`make(step)` of every step, in order; the next one is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for step in steps:
            made, waiting = waiting, pool.submit(make, step)
            if made is not None:
                yield made.result()
        if waiting is not None:
            yield waiting.result()


@dataclass
class Fitting:
    """Steps a set of modules with AdamW, keeps their moving average, and saves or resumes the whole state in
    `file`.

    It ends after `steps`, or earlier after `seconds` of training if that is above 0.
    """

    modules: nn.Module
    file: Path
    steps: int
    lr: float
    ema: float
    save_every: int
    seconds: float = 0.0

    def __post_init__(self) -> None:
        from diffusers.training_utils import EMAModel

        self.parameters = list(self.modules.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = EMAModel(self.parameters, decay=self.ema, use_ema_warmup=True, power=0.8, foreach=True)
        self.step, self.loss, self.spent = 0, math.nan, 0.0
        if state := load_state(self.file, self.parameters[0].device):
            self.modules.load_state_dict(state["modules"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state_dict(state["average"])
            self.step, self.loss, self.spent = state["step"], state["loss"], state["spent"]

    def remaining(self, what: str) -> Iterator[int]:
        """The numbers of the steps that are still to be done, with a progress line."""
        todo = range(self.step, self.steps)
        began = time.monotonic() - self.spent
        for step in progress(todo, total=self.steps, done=self.step, what=what, unit="step"):
            self.spent = time.monotonic() - began
            if self.done >= 1:
                return
            yield step

    @property
    def done(self) -> float:
        """The share of the training that is done, of its steps or of its seconds."""
        return max(self.step / max(1, self.steps), self.spent / self.seconds if self.seconds else 0.0)

    def rate(self) -> float:
        """The learning rate's factor: 200 steps of warm-up, constant, then linearly to zero over the last
        third.
        """
        return min(1.0, (self.step + 1) / WARM_UP, max(0.0, 3 * (1 - self.done)))

    def update(self, loss: Tensor) -> bool:
        """One step down the loss's gradient; saves the state every `save_every` steps and after the last, and
        says whether.

        Raises FloatingPointError for a loss that is not finite.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The loss became {value} at step {self.step}; lower the learning rate ({self.lr})."
            )
        self.loss = value if math.isnan(self.loss) else 0.99 * self.loss + 0.01 * value
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.rate()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.parameters)
        self.step += 1
        due = self.step % self.save_every == 0 or self.done >= 1
        if due:
            self.save()
        return due

    def save(self) -> None:
        """Writes the whole state, from which the same call goes on."""
        state = {
            "modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(), "step": self.step, "loss": self.loss, "spent": self.spent,
        }  # fmt: skip
        save_state(self.file, state)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the modules hold the moving average."""
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            self.average.restore(self.parameters)

    def finish(self) -> None:
        """Puts the moving average into the modules, for good."""
        self.average.copy_to(self.parameters)
