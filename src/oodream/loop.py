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
from .distributed import Shard, averaged, launched, leads, mean, wait
from .images import Images
from .seeding import derive, generator, seeded
from .store import progress, write_bytes
from .types import Loss, Output, Step, Terms

PRECISIONS = ("auto", "bf16", "fp32")
ALL = Shard()


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a batch is made of: ID images, a share of which come from `reconstructed`, and imagined images beside them.

    For every ID image there are `ratio` imagined ones: `inliers`, which are of their class and weigh `weight`, or `outliers`. A
    share `grey` of them is turned grey.
    """

    id: Images
    reconstructed: Images | None = None
    share: float = 0.0
    inliers: Images | None = None
    weight: float = 1.0
    outliers: Images | None = None
    ratio: float = 1.0
    grey: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Known images, then outliers: `images_B3HW` uint8; labels and weights of the known ones."""

    images_B3HW: Tensor
    y_B: Tensor
    weight_B: Tensor


def augment(images_B3HW: Tensor, config: Optimisation, g: torch.Generator) -> Tensor:
    """Random shift by up to `crop_padding` pixels (edges repeated) or resized crop, and, if asked, flip; uint8 in and out."""
    B, _, H, W = images_B3HW.shape
    if config.flip:
        flipped = torch.rand(B, generator=g) < 0.5
        images_B3HW = torch.where(flipped[:, None, None, None], images_B3HW.flip(3), images_B3HW)
    if config.least_area < 1:
        return resized_crop(images_B3HW, config.least_area, g)
    if (pad := config.crop_padding) == 0:
        return images_B3HW
    padded = F.pad(images_B3HW.float(), (pad,) * 4, mode="replicate").to(torch.uint8)
    top, left = torch.randint(0, 2 * pad + 1, (2, B, 1), generator=g)
    rows, columns = top + torch.arange(H), left + torch.arange(W)
    return padded[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resized_crop(images_B3HW: Tensor, least_area: float, g: torch.Generator) -> Tensor:
    """A random box of each image, of at least that share of its area and sides of 3:4 to 4:3, at the image's size; uint8.

    The crop of Szegedy et al. (2015), bilinear; a box that is wider or higher than the image is cut to it.
    """
    B = len(images_B3HW)
    area = torch.rand(B, generator=g) * (1 - least_area) + least_area
    stretch = (torch.rand(B, generator=g) * 2 - 1).mul(math.log(4 / 3) / 2).exp()
    half_B2 = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp(max=1)
    centre_B2 = (torch.rand(B, 2, generator=g) * 2 - 1) * (1 - half_B2)
    theta_B23 = torch.cat([torch.diag_embed(half_B2), centre_B2[:, :, None]], 2)
    grid = F.affine_grid(theta_B23, list(images_B3HW.shape), align_corners=False)
    cut = F.grid_sample(images_B3HW.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.round().to(torch.uint8)


def greyscale(images_B3HW: Tensor) -> Tensor:
    """The images' luma (ITU-R BT.601, as Pillow's mode L) in all three channels; uint8 in and out."""
    weight = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images_B3HW.float() * weight).sum(1, keepdim=True).round().to(torch.uint8).expand_as(images_B3HW)


def epoch_batches(data: Mixture, config: Optimisation, seed: int, epoch: int, part: Shard = ALL) -> Iterator[Batch]:
    """The batches of an epoch, a function of (seed, epoch) alone; of each, every `part.count`-th row of every kind.

    Reconstructed rows come first, then ID rows, then inliers, then outliers.
    """
    g = generator(seed, "epoch", epoch)
    moves = generator(seed, "augment", epoch, part.index) if part.count > 1 else g
    order = torch.randperm(len(data.id), generator=g)
    mine = slice(part.index, None, part.count)
    for start in range(0, len(order) - config.batch + 1 if len(order) >= config.batch else 1, config.batch):
        rows = order[start : start + config.batch]
        pieces: list[tuple[Images, Tensor]] = [(data.id, rows)]
        if data.reconstructed is not None and (n := round(data.share * len(rows))):
            pieces = [(data.reconstructed, torch.randint(len(data.reconstructed), (n,), generator=g)), (data.id, rows[n:])]
        known = sum(len(rows_of[mine]) for _, rows_of in pieces)
        weights = torch.ones(known)
        for imagined in (data.inliers, data.outliers):
            if imagined is not None:
                pieces.append((imagined, torch.randint(len(imagined), (round(data.ratio * len(rows)),), generator=g)))
        parts = [images.batch(rows_of[mine]) for images, rows_of in pieces]
        if data.inliers is not None or data.outliers is not None:
            turned = (torch.rand(len(pieces[-1][1]), generator=g) < data.grey)[mine] if data.grey > 0 else torch.tensor(False)
            parts[-1] = torch.where(turned.view(-1, 1, 1, 1), greyscale(parts[-1]), parts[-1])
        if data.inliers is not None:
            weights = torch.cat([weights, torch.full((len(parts[-1]),), data.weight)])
        y_B = torch.cat([images.labels[rows_of[mine]] for images, rows_of in pieces])[: len(weights)]
        yield Batch(images_B3HW=augment(torch.cat(parts), config, moves), y_B=y_B, weight_B=weights)


class Objective(nn.Module):
    """Network and loss as one module: a batch in, the loss's terms and the share of known images named rightly out."""

    def __init__(self, model: nn.Module, loss: Loss, cast: AbstractContextManager[object]) -> None:
        super().__init__()
        self.model, self.loss, self.cast = model, loss, cast

    def forward(self, images_B3HW: Tensor, y_B: Tensor, weight_B: Tensor) -> tuple[Terms, Tensor]:
        with self.cast:
            both = self.model(images_B3HW)
        logits, z, n = both.logits_BC.float(), both.z_BF.float(), len(y_B)
        ood = Output(logits_BC=logits[n:], z_BF=z[n:]) if len(both) > n else None
        terms = self.loss(Step(id=Output(logits_BC=logits[:n], z_BF=z[:n]), y_B=y_B, weight_B=weight_B, ood=ood))
        return terms, (logits[:n].argmax(1) == y_B).float().mean()


def fit(
    model: nn.Module, loss: Loss, data: Mixture, config: Optimisation, seed: int, device: torch.device, state: Path, what: str
) -> list[dict[str, float]]:
    """Trains `model` in place (all images in one forward pass) and returns each epoch's mean loss parts and ID accuracy.

    `state` is where the resume state lies between epochs; the caller removes it. Of several processes each takes its part of
    every batch, gradients are averaged, and the first one writes. Raises FloatingPointError on a loss that is not finite,
    ValueError on an unknown precision or a batch that does not divide.
    """
    part = launched()
    if config.batch % part.count:
        raise ValueError(f"A batch of {config.batch} images cannot be shared evenly by {part.count} processes.")
    objective = Objective(model, loss, autocast(config.precision, device)).to(device)
    steps = max(1, len(data.id) // config.batch)
    epochs = max(config.epochs, -(-config.least_steps // steps))
    total = steps * epochs
    optimizer = torch.optim.SGD(objective.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)
    log: list[dict[str, float]] = []
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device)
        objective.load_state_dict(saved["modules"])
        optimizer.load_state_dict(saved["optimizer"])
        log = saved["log"]
    wait(device)  # before the first process writes a newer state
    shared = averaged(objective, device)

    def batches() -> Iterator[tuple[int, Batch]]:
        for epoch in range(len(log), epochs):
            for batch in epoch_batches(data, config, derive(seed, what), epoch, part):
                yield epoch, batch

    objective.train()
    sums: dict[str, float] = {}
    done = len(log) * steps
    for step, (epoch, batch) in enumerate(progress(batches(), total=total, done=done, what=what, unit="step"), done):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * one_cycle((step + 1) / total)
        with seeded(seed, what, step, part.index):  # dropout, where a network has it, belongs to the step
            terms, accuracy = shared(*(x.to(device) for x in (batch.images_B3HW, batch.y_B, batch.weight_B)))
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
            if leads():
                buffer = io.BytesIO()
                torch.save({"modules": objective.state_dict(), "optimizer": optimizer.state_dict(), "log": log}, buffer)
                write_bytes(state, buffer.getvalue())
    wait(device)
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
