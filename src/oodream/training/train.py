"""The verb `train`: a classifier, plain or regularised with imagined images or latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..core.registry import make, make_all
from ..core.seeding import seeded
from ..core.types import Loss, Sizes, Step, Terms
from ..models.factory import SCRATCH, backbone, load_weights
from .batches import Mixture
from .loop import fit

NO_ADAPTER = "none"


class Sum(Loss):
    """Losses that add up; their parts keep their names."""

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.outliers, self.teacher = (
            any(getattr(loss, need) for loss in losses.values()) for need in ("outliers", "teacher")
        )

    def build(self, sizes: Sizes) -> None:
        for loss in self.losses.values():
            loss.build(sizes)  # type: ignore[operator]

    def forward(self, step: Step) -> Terms:
        found = {name: loss(step) for name, loss in self.losses.items()}
        parts = {
            f"{part}{''.join(name.partition('@')[1:])}": x
            for name, terms in found.items()
            for part, x in terms.parts.items()
        }
        return Terms(total=torch.stack([terms.total for terms in found.values()]).sum(), parts=parts)


def make_loss(config: TrainConfig) -> Loss:
    """The configured losses as one."""
    losses = make_all("losses", config.loss, config.loss_options)
    return Sum(losses) if len(losses) > 1 else next(iter(losses.values()))


def first(loss: Loss) -> Loss:
    """The first of several losses, or the only one: the one that a trained classifier keeps."""
    return next(iter(loss.losses.values())) if isinstance(loss, Sum) else loss  # type: ignore[return-value]


@torch.no_grad()
def width(model: nn.Module, size: int) -> int:
    """How wide the features of a network are, for images of that size."""
    was = model.training
    z = model.eval()(
        torch.zeros(1, 3, size, size, dtype=torch.uint8, device=next(model.parameters()).device)
    ).z_BF
    model.train(was)
    return int(z.shape[1])


def learn_adapter(data: Mixture, config: TrainConfig, seed: int, device: torch.device) -> dict[str, Tensor]:
    """What a path for latents learns before any classifier, as a state that `train` takes; once for all seeds."""
    with seeded(seed, "path"):
        path = make_adapter(data, config, backbone(config.backbone, len(data.id.classes)))
    path.learn(data, seed, device)  # type: ignore[operator]
    return path.state_dict()


def make_adapter(data: Mixture, config: TrainConfig, model: nn.Module) -> nn.Module:
    """The configured path, as yet untaught."""
    assert data.bank is not None
    latent = tuple(data.bank.coloured[1].shape[1:])
    path: nn.Module = make(
        "latent_adapters",
        config.path,
        model=model,
        latent=latent,
        size=data.id.size,
        **config.adapter_options,
    )
    return path


def train(
    data: Mixture,
    config: TrainConfig,
    seed: int,
    device: torch.device,
    state: Path,
    what: str,
    teacher: nn.Module | None = None,
    learnt: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, Loss, list[dict[str, float]]]:
    """Trains a classifier on the mixture; returns it with its loss (which holds phi) and its log.

    `learnt` is what `learn_adapter` returned, for a path that learns first; it stays as it is. The seed fixes the weights and every
    batch. ValueError when the weights it is to begin with cannot be read or do not fit, or when a loss lacks what it needs.
    """
    options: dict[str, Any] = {}
    with seeded(seed, "train"):
        model = backbone(config.backbone, len(data.id.classes), pretrained=not config.init)
        if config.init and config.init != SCRATCH:
            load_weights(model, Path(config.init), new_head=True)
        loss = make_loss(config)
        latent = tuple(data.bank.ood_MFHW.shape[1:]) if data.bank else None
        loss.build(
            Sizes(
                features=width(model, data.id.size), classes=len(data.id.classes),
                text=data.drawn_from.vector_MD.shape[1] if data.drawn_from else 0,
                teacher=width(teacher, data.id.size) if teacher else 0, latent=latent,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        if data.bank and config.path != NO_ADAPTER:
            options["path"] = path = make_adapter(data, config, model)
            if hasattr(path, "learn") and learnt is None:
                raise ValueError(
                    f"The path {config.path} learns before a classifier does: pass what learn_adapter returned."
                )
            if learnt is not None:
                path.load_state_dict(learnt)
                path.requires_grad_(False)
    log = fit(model, loss, data, config.optimisation, seed, device, state, what, teacher=teacher, **options)
    return model, loss, log
