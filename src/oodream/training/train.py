"""The verb `train`: a classifier, the baseline or one regularized with imagined images or latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import LatentsConfig, TrainConfig
from ..core.faults import blamed
from ..core.registry import get, make, make_all
from ..core.seeding import seeded
from ..core.types import LatentAdapter, Loss, Sizes
from ..models.factory import backbone, initial_network
from ..models.inference import linear_head, network_device
from .latent_adapters import NO_ADAPTER
from .loop import fit
from .sources import KnownPairs, LatentSet, Source, check_sources, known_images
from .terms import LossSum, build_loss, check_is_loss

__all__ = [
    "Trained",
    "adapter_maker",
    "is_pretrained",
    "learn_adapter",
    "make_loss",
    "train",
]

AdapterMaker = Callable[[nn.Module], LatentAdapter]


@dataclass(frozen=True)
class Trained:
    """A trained network, the loss that a classifier keeps, and the log: the means of each epoch.

    Of several losses a classifier keeps the first.
    """

    network: nn.Module
    loss: Loss
    log: list[dict[str, float]]


def make_loss(names: Sequence[str], options: Mapping[str, Any] | None = None) -> Loss:
    """The losses of these names as one, each with its own options.

    `beta=1.0` is the first one's, `kd.logit=4` that of kd.

    Raises ValueError for a name that no loss has, an option that no loss has, and what is no loss.
    """
    losses = make_all("losses", names, options or {})
    for name, loss in losses.items():
        with blamed(f"The loss {name}", loss):
            check_is_loss(loss)
    return LossSum(losses) if len(losses) > 1 else next(iter(losses.values()))


def is_pretrained(config: LatentsConfig) -> bool:
    """Whether the configured latent adapter learns before any classifier does (`learn_adapter`)."""
    return config.adapter != NO_ADAPTER and get("latent_adapters", config.adapter).pretrained


def adapter_maker(
    config: LatentsConfig,
    latent: tuple[int, int, int],
    size: int,
    learned: Mapping[str, Tensor] | None = None,
) -> AdapterMaker | None:
    """What makes the configured latent adapter for a network, as `train` takes it; None for "none".

    `latent` is the latents' shape, `size` the images' width. `learned` is what `learn_adapter` returned, for
    an adapter that is pretrained: the adapter then stays as it is. Raises ValueError where it is pretrained
    and has not learned.
    """
    if config.adapter == NO_ADAPTER:
        return None
    if is_pretrained(config) and learned is None:
        raise ValueError(
            f"The latent adapter {config.adapter} learns before a classifier does: "
            "pass what learn_adapter returned."
        )

    def adapter_for(model: nn.Module) -> LatentAdapter:
        adapter = _make_adapter(config, model, latent, size)
        if learned is not None:
            adapter.load_state_dict(learned)
            adapter.requires_grad_(False)
        return adapter

    return adapter_for


def learn_adapter(
    pairs: KnownPairs, config: LatentsConfig, backbone_name: str, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """What a pretrained latent adapter learns before any classifier: a state for `adapter_maker`.

    It serves all classifiers of a run. It is made beside an untrained network of that name, so its first
    weights depend on the name.
    """
    images = pairs.images
    with seeded(seed, "path"):
        network = backbone(backbone_name, len(images.classes))
        adapter = _make_adapter(config, network, pairs.latents.shape, images.size)
    adapter.fit(pairs, seed, device)
    return adapter.state_dict()


def _make_adapter(
    config: LatentsConfig, model: nn.Module, latent: tuple[int, int, int], size: int
) -> LatentAdapter:
    adapter: LatentAdapter = make(
        "latent_adapters", config.adapter, model=model, latent=latent, size=size, **config.options
    )
    return adapter


def train(
    sources: Sequence[Source],
    config: TrainConfig,
    seed: int,
    device: torch.device,
    state: Path,
    what: str,
    *,
    loss: Loss,
    adapter: AdapterMaker | None = None,
    teacher: nn.Module | None = None,
    stream: str = "",
) -> Trained:
    """Trains a classifier on the sources. The seed fixes the weights and every batch.

    `loss` is as `make_loss` makes it; its networks are built here. `adapter` is what `adapter_maker`
    returned, for sources with latents. `state`, `what` and `stream` are as in `loop.fit`.

    Raises ValueError when the weights to begin with cannot be read or do not fit, or when the loss lacks what
    it needs.
    """
    check_sources(sources)
    outliers = any(source.role == "outlier" for source in sources)
    for needed, there, noun in ((loss.outliers, outliers, "outliers"), (loss.teacher, teacher, "a teacher")):
        if needed and not there:
            raise ValueError(f"{what}: the loss needs {noun}, and there is none.")
    with seeded(seed, "train"):
        network = initial_network(config.backbone, len(known_images(sources).classes), config.init)
        if loss.needs_head and linear_head(network) is None:
            raise ValueError(f"{what}: the loss needs a linear head, and {config.backbone} shows none.")
        build_loss(loss, loss_sizes(network, sources, teacher))
        latent_adapter = adapter(network) if adapter else None
    log = fit(
        network,
        loss,
        sources,
        config.optimisation,
        seed,
        device,
        state,
        what,
        adapter=latent_adapter,
        teacher=teacher,
        stream=stream,
    )
    kept = next(iter(loss.losses.values())) if isinstance(loss, LossSum) else loss
    kept.finish()  # type: ignore[operator]
    return Trained(network, kept, log)  # type: ignore[arg-type]


def loss_sizes(network: nn.Module, sources: Sequence[Source], teacher: nn.Module | None) -> Sizes:
    """What the networks of a loss are made for."""
    images = known_images(sources)
    outliers = next((source for source in sources if source.role == "outlier"), None)
    vectors = outliers.vectors if outliers else None
    return Sizes(
        features=feature_width(network, images.size),
        classes=len(images.classes),
        text=0 if vectors is None else vectors.shape[1],
        teacher=feature_width(teacher, images.size) if teacher else 0,
        names=int(outliers.named.max()) + 1 if outliers else 0,
        latent=outliers.data.shape if outliers and isinstance(outliers.data, LatentSet) else None,
    )


@torch.no_grad()
def feature_width(network: nn.Module, size: int) -> int:
    """The width of a network's features, for images of that size."""
    training, device = network.training, network_device(network)
    z_BF = network.eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)).z_BF
    network.train(training)
    return int(z_BF.shape[1])
