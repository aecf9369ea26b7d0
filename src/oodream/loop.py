"""The one training loop: SGD with a one-cycle rate over batches of ID images, optionally with outliers beside them.

It never looks inside a loss. State is saved after every epoch, so a killed training continues and ends with the same weights.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import Optimisation
from .images import Images
from .seeding import derive, generator, seeded
from .store import progress, write_bytes
from .types import Loss, Output

PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a batch is made of: ID images, a share of which come from `reconstructed`, and `ratio` outliers for every ID image.

    A share `grey` of the outliers is turned grey.
    """

    id: Images
    reconstructed: Images | None = None
    share: float = 0.0
    outliers: Images | None = None
    ratio: float = 1.0
    grey: float = 0.0


def augment(images_B3HW: Tensor, config: Optimisation, g: torch.Generator) -> Tensor:
    """Random shift by up to `crop_padding` pixels (edges repeated) and, if asked, horizontal flip; uint8 in and out."""
    B, _, H, W = images_B3HW.shape
    if config.flip:
        flipped = torch.rand(B, generator=g) < 0.5
        images_B3HW = torch.where(flipped[:, None, None, None], images_B3HW.flip(3), images_B3HW)
    if (pad := config.crop_padding) == 0:
        return images_B3HW
    padded = F.pad(images_B3HW.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    top, left = torch.randint(0, 2 * pad + 1, (2, B, 1), generator=g)
    rows, columns = top + torch.arange(H), left + torch.arange(W)
    return padded[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def greyscale(images_B3HW: Tensor) -> Tensor:
    """The images' luma (ITU-R BT.601, as Pillow's mode L) in all three channels; uint8 in and out."""
    weight = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images_B3HW.float() * weight).sum(1, keepdim=True).round().to(torch.uint8).expand_as(images_B3HW)


def epoch_batches(data: Mixture, config: Optimisation, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(images, ID labels, number of ID images): ID rows first, then outliers; a function of (seed, epoch) alone."""
    g = generator(seed, "epoch", epoch)
    order = torch.randperm(len(data.id), generator=g)
    for start in range(0, len(order) - config.batch + 1 if len(order) >= config.batch else 1, config.batch):
        rows = order[start : start + config.batch]
        images, labels = data.id.batch(rows), data.id.labels[rows]
        if data.reconstructed is not None and (n := round(data.share * len(rows))):
            other = torch.randint(len(data.reconstructed), (n,), generator=g)
            images = torch.cat([data.reconstructed.batch(other), images[n:]])
            labels = torch.cat([data.reconstructed.labels[other], labels[n:]])
        if data.outliers is not None:
            other = torch.randint(len(data.outliers), (round(data.ratio * len(rows)),), generator=g)
            outliers = data.outliers.batch(other)
            if data.grey > 0:
                turned = torch.rand(len(outliers), generator=g) < data.grey
                outliers = torch.where(turned[:, None, None, None], greyscale(outliers), outliers)
            images = torch.cat([images, outliers])
        yield augment(images, config, g), labels, len(rows)


def fit(
    model: nn.Module, loss: Loss, data: Mixture, config: Optimisation, seed: int, device: torch.device, state: Path, what: str
) -> list[dict[str, float]]:
    """Trains `model` in place (ID and outliers in one forward pass) and returns each epoch's mean loss parts and ID accuracy.

    `state` is where the resume state lies between epochs; the caller removes it. Raises FloatingPointError on a loss that is not
    finite, ValueError on an unknown precision.
    """
    cast = autocast(config.precision, device)
    everything = nn.ModuleDict({"model": model, "loss": loss}).to(device)
    steps = max(1, len(data.id) // config.batch)
    epochs = max(config.epochs, -(-config.least_steps // steps))
    total = steps * epochs
    optimizer = torch.optim.SGD(
        everything.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    log: list[dict[str, float]] = []
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        everything.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        log = saved["log"]

    def batches() -> Iterator[tuple[int, tuple[Tensor, Tensor, int]]]:
        for epoch in range(len(log), epochs):
            for batch in epoch_batches(data, config, derive(seed, what), epoch):
                yield epoch, batch

    everything.train()
    sums: dict[str, float] = {}
    done = len(log) * steps
    for step, (epoch, (images, labels, n)) in enumerate(progress(batches(), total=total, done=done, what=what, unit="step"), done):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * one_cycle((step + 1) / total)
        labels = labels.to(device)
        with cast, seeded(seed, what, step):  # dropout, where a network has it, belongs to the step
            both = model(images.to(device))
        logits, z = both.logits_BC.float(), both.z_BF.float()
        id = Output(logits_BC=logits[:n], z_BF=z[:n])
        ood = Output(logits_BC=logits[n:], z_BF=z[n:]) if len(both) > n else None
        terms = loss(id, labels, ood)
        value = terms.total.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{what}: the loss became {value} in epoch {epoch + 1}. Lower the learning rate ({config.lr})."
            )
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        accuracy = (id.logits_BC.argmax(1) == labels).float().mean().item()
        for name, part in {"loss": value, "accuracy": accuracy, **{k: v.item() for k, v in terms.parts.items()}}.items():
            sums[name] = sums.get(name, 0.0) + part / steps
        if (step + 1) % steps == 0:
            log.append(sums)
            sums = {}
            buffer = io.BytesIO()
            torch.save({"modules": everything.state_dict(), "optimizer": optimizer.state_dict(), "log": log}, buffer)
            write_bytes(state, buffer.getvalue())
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
