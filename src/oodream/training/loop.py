"""The one training loop: SGD with a one-cycle rate over batches of ID images, optionally with outliers beside them.

It never looks inside a loss. State is saved after every epoch, so a killed training continues and ends with the same weights.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import Optimisation
from ..core.distributed import averaged, barrier, current_shard, is_main, mean
from ..core.files import write_bytes
from ..core.progress import progress
from ..core.seeding import derive, seeded
from ..core.types import Loss, Output, Step, Terms
from ..models.inference import outputs
from .batches import Batch, Mixture, epoch_batches

PRECISIONS = ("auto", "bf16", "fp32")


class Objective(nn.Module):
    """Network and losses as one module: a batch in, the terms and the share of known images named rightly out.

    `path` takes latents to the network. The teacher is not part of the module: nothing of it is trained, saved or averaged.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, cast: AbstractContextManager[object], path: nn.Module | None = None,
        teacher: Callable[[Batch], Output] | None = None, tokens_CD: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.loss, self.cast, self.path = model, loss, cast, path
        self.teacher, self.tokens_CD = teacher, tokens_CD

    def forward(self, batch: Batch) -> tuple[Terms, Tensor]:
        images, latents, off = batch.images_B3HW, batch.latents, None
        with self.cast:
            if latents is None or self.path is None:
                both = self.model(images)
            else:
                both, off = self.path(self.model, images, latents)
        logits, z, n = both.logits_BC.float(), both.z_BF.float(), len(batch.y_B)
        ood = Output(logits_BC=logits[n:], z_BF=z[n:]) if len(both) > n else None
        step = Step(
            id=Output(logits_BC=logits[:n], z_BF=z[:n]), y_B=batch.y_B, weight_B=batch.weight_B, ood=ood,
            vector_OD=batch.vector_OD, near_O=batch.near_O, tokens_CD=self.tokens_CD,
            latent_OFHW=latents.latent_LFHW[len(latents.pair_K3HW) :] if latents else None,
            teacher=self.teacher(batch) if self.teacher else None,
        )  # fmt: skip
        terms = self.loss(step)
        if off is not None:
            terms = Terms(total=terms.total + off.float(), parts={**terms.parts, "path": off.float()})
        return terms, (logits[:n].argmax(1) == batch.y_B).float().mean()


def teaching(
    teacher: nn.Module, data: Mixture, config: Optimisation, device: torch.device
) -> Callable[[Batch], Output]:
    """The teacher's outputs for a batch's known images; computed once for all where every pass shows the very same images."""
    teacher = teacher.to(device).eval()
    same = config.crop_padding == 0 and not config.flip and config.min_area >= 1
    if same and data.reconstructed is None and data.inliers is None:
        every = outputs(teacher, data.id, device)
        return lambda batch: Output(
            logits_BC=every.logits_BC[batch.row_B.cpu()].to(device),
            z_BF=every.z_BF[batch.row_B.cpu()].to(device),
        )

    @torch.no_grad()
    def ask(batch: Batch) -> Output:
        return teacher(batch.images_B3HW[: len(batch.row_B)])

    return ask


def fit(
    model: nn.Module, loss: Loss, data: Mixture, config: Optimisation, seed: int, device: torch.device, state: Path, what: str,
    path: nn.Module | None = None, teacher: nn.Module | None = None,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains `model` in place (all images in one forward pass) and returns each epoch's mean loss parts and ID accuracy.

    `path` takes the latents of `data.bank` to the model and is trained along; `teacher` is asked, not trained. `state` is where the
    resume state lies between epochs; the caller removes it. Of several processes each takes its part of every batch, gradients are
    averaged, and the first one writes. Raises FloatingPointError on a loss that is not finite, ValueError on an unknown precision
    or a batch that does not divide.
    """
    part = current_shard()
    if config.batch % part.count:
        raise ValueError(
            f"A batch of {config.batch} images cannot be shared evenly by {part.count} processes."
        )
    objective = Objective(
        model.to(device), loss, autocast(config.precision, device), path,
        teaching(teacher, data, config, device) if teacher else None,
        data.drawn_from.tokens_CD.to(device) if data.drawn_from else None,
    ).to(device)  # fmt: skip
    steps = max(1, len(data.id) // config.batch)
    epochs = max(config.epochs, -(-config.min_steps // steps))
    total = steps * epochs
    optimizer = torch.optim.SGD(
        objective.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    log: list[dict[str, float]] = []
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        objective.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        log = saved["log"]
    barrier(device)  # before the first process writes a newer state
    shared = averaged(objective, device)

    def batches() -> Iterator[tuple[int, Batch]]:
        for epoch in range(len(log), epochs):
            for batch in epoch_batches(data, config, derive(seed, what), epoch, part):
                yield epoch, batch

    objective.train()
    sums: dict[str, float] = {}
    done = len(log) * steps
    for step, (epoch, batch) in enumerate(
        progress(batches(), total=total, done=done, what=what, unit="step"), done
    ):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * one_cycle((step + 1) / total)
        with seeded(seed, what, step, part.index):  # dropout, where a network has it, belongs to the step
            terms, accuracy = shared(batch.to(device))
        optimizer.zero_grad()
        terms.total.backward()
        told = {"loss": terms.total, "accuracy": accuracy, **terms.parts}
        values = dict(zip(told, mean(torch.stack([v.detach() for v in told.values()])).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"{what}: the loss became {values['loss']} in epoch {epoch + 1}. Lower the learning rate ({config.lr})."
            )
        optimizer.step()
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value / steps
        if (step + 1) % steps == 0:
            log.append(sums)
            sums = {}
            if is_main():
                buffer = io.BytesIO()
                torch.save(
                    {"modules": objective.state_dict(), "optimizer": optimizer.state_dict(), "log": log},
                    buffer,
                )
                write_bytes(state, buffer.getvalue())
    barrier(device)
    return log


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 beside float32, or nothing; ValueError on an unknown precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {', '.join(PRECISIONS)}, not {precision!r}.")
    mixed = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext()


def one_cycle(t: float) -> float:
    """The rate's factor at share t of the training: linear to 1 over the first fifth, then half a cosine to 0."""
    return t / 0.2 if t < 0.2 else 0.5 * (1 + math.cos(math.pi * (t - 0.2) / 0.8))
