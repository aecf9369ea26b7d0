"""How any part of the decoder is trained: batches by weight, AdamW, a moving average of the weights, and
resuming.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...config import FitDecoderConfig
from ...core.files import write_bytes
from ...core.progress import progress
from ...core.seeding import generator

__all__ = ["Fitting", "batch_rows"]

WARM_UP = 200
"""steps until the learning rate has risen to its peak"""


def batch_rows(
    weights: Tensor, config: FitDecoderConfig, part: str, step: int
) -> tuple[Tensor, torch.Generator]:
    """The rows (B,) of one step's batch, in proportion to `weights` (N,), and a generator for what else is
    random in it.
    """
    g = generator(config.seed, "fit-decoder", part, step)
    return torch.multinomial(weights, config.batch, replacement=True, generator=g), g


@dataclass
class Fitting:
    """Steps a set of modules with AdamW, keeps their moving average, and saves or resumes the whole state in
    `file`.
    """

    modules: nn.Module
    file: Path
    steps: int
    lr: float
    ema: float
    save_every: int

    def __post_init__(self) -> None:
        from diffusers.training_utils import EMAModel

        self.parameters = list(self.modules.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = EMAModel(self.parameters, decay=self.ema, use_ema_warmup=True, power=0.8)
        self.step, self.loss = 0, math.nan
        if self.file.exists():
            state = torch.load(self.file, weights_only=True, map_location=self.parameters[0].device)
            self.modules.load_state_dict(state["modules"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average.load_state_dict(state["average"])
            self.step, self.loss = state["step"], state["loss"]

    def remaining(self, what: str) -> Iterable[int]:
        """The numbers of the steps that are still to be done, with a progress line."""
        todo = range(self.step, self.steps)
        return progress(todo, total=self.steps, done=self.step, what=what, unit="step")

    def rate(self) -> float:
        """The learning rate's factor: 200 steps of warm-up, constant, then linearly to zero over the last
        third.
        """
        return min(1.0, (self.step + 1) / WARM_UP, max(0.0, (self.steps - self.step) / (self.steps / 3)))

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
        due = self.step % self.save_every == 0 or self.step == self.steps
        if due:
            self.save()
        return due

    def save(self) -> None:
        """Writes the whole state, from which the same call goes on."""
        state = {
            "modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(), "step": self.step, "loss": self.loss,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.file, buffer.getvalue())

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
