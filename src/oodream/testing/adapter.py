"""A public check for latent adapters: the rules that any keeps, however latents reach the classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core.faults import require
from ..core.registry import make
from ..core.seeding import generator, seeded
from ..core.types import LatentAdapter, Latents, Output
from ..models.factory import backbone
from ._rules import rules_of

__all__ = ["check_adapter"]

SETTINGS = ((32, (4, 8, 8)), (20, (3, 8, 8)))  # image size, shape of a latent
CLASSES, IMAGES, KNOWN, OUTLIERS = 3, 2, 3, 4
CPU = torch.device("cpu")
Factory = Callable[..., LatentAdapter]


def check_adapter(adapter: str | Factory, **options: Any) -> None:
    """Raises AssertionError with the rule that a latent adapter breaks.

    `adapter` is a registered name, `package.module:Class` or the class itself, `options` are its own; choose
    them so that an adapter that is pretrained learns in a moment. The rules: it returns outputs for the
    images, as the network alone gives them, and then one row for each latent; gradients of these reach the
    network, and the adapter learns, by `fit` if it is pretrained, else from a step; a pretrained adapter
    stays as it is in a step; its own loss is a finite scalar, of known latents alone; a batch may hold no
    known latents; `augment` is given uint8 previews; the network's mode stays.
    """
    factory = partial(make, "latent_adapters", adapter) if isinstance(adapter, str) else adapter
    with rules_of(adapter):
        for size, latent in SETTINGS:
            with seeded(0, "check_adapter"):
                network = backbone("resnet8", CLASSES)
                made = factory(model=network, latent=latent, size=size, **options)
                twin = copy.deepcopy(made)
            require(
                isinstance(made, LatentAdapter),
                "A latent adapter is a subclass of oodream.core.types.LatentAdapter.",
            )
            if made.pretrained:
                _check_fit(made, twin, size, latent)
            _check_outputs(made, network, size, latent)
            _check_learning(made, network, size, latent)
            _check_mode(made, network, size, latent)


class RandomPairs:
    """Images of one colour each, and latents that hold it."""

    def __init__(self, size: int, latent: tuple[int, int, int]) -> None:
        self.size, self.latent = size, latent

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        level_N = torch.rand(n, generator=g)
        images = (255 * level_N)[:, None, None, None].expand(n, 3, self.size, self.size).to(torch.uint8)
        return images, level_N[:, None, None, None].expand(n, *self.latent).clone()


def _inputs(
    size: int, latent: tuple[int, int, int], known: int = KNOWN
) -> tuple[Tensor, Latents, list[Tensor]]:
    """Images, latents of `known` pairs and of outliers, and what `augment` is called with."""
    g = generator(0, "check_adapter", size)
    images = torch.randint(0, 256, (IMAGES, 3, size, size), generator=g, dtype=torch.uint8)
    pairs, latents = RandomPairs(size, latent).draw(known, g)
    previews: list[Tensor] = []

    def augment(preview_L3HW: Tensor) -> Tensor:
        previews.append(preview_L3HW)
        return preview_L3HW

    outliers = torch.randn(OUTLIERS, *latent, generator=g)
    return (
        images,
        Latents(latent_LFHW=torch.cat([latents, outliers]), pair_K3HW=pairs, augment=augment),
        previews,
    )


def _check_fit(adapter: LatentAdapter, twin: LatentAdapter, size: int, latent: tuple[int, int, int]) -> None:
    before = copy.deepcopy(adapter.state_dict())
    for one in (adapter, twin):
        with seeded(0, "check_adapter", "fit"):
            one.fit(RandomPairs(size, latent), 7, CPU)
    require(not _same(before, adapter.state_dict()), "A pretrained adapter learns nothing by fit.")
    require(
        _same(twin.state_dict(), adapter.state_dict()),
        "fit does not give the same weights for the same seed.",
    )
    adapter.requires_grad_(False)  # as a training does


def _check_outputs(
    adapter: LatentAdapter, network: nn.Module, size: int, latent: tuple[int, int, int]
) -> None:
    adapter.eval()
    network.eval()
    for known in (KNOWN, 0):
        images, latents, previews = _inputs(size, latent, known)
        with torch.no_grad():
            output, own_loss = adapter(network, images, latents)
            alone: Output = network(images)
        rows = IMAGES + known + OUTLIERS
        for name, x, expected in (
            ("logits", output.logits_BC, alone.logits_BC),
            ("features", output.z_BF, alone.z_BF),
        ):
            require(
                x.shape == (rows, expected.shape[1]),
                f"The {name} have the shape {tuple(x.shape)}, not {(rows, expected.shape[1])}: a row for "
                f"each of {IMAGES} images, {known} known latents and {OUTLIERS} outliers.",
            )
            require(
                torch.allclose(x[:IMAGES], expected, rtol=1e-4, atol=1e-5),
                f"The first rows' {name} are not those that the network gives the images.",
            )
        for preview in previews:
            require(preview.dtype == torch.uint8, f"augment is given {preview.dtype}, not uint8.")
            require(
                preview.shape == (known + OUTLIERS, 3, size, size),
                f"augment is given {tuple(preview.shape)}, not a preview for each latent.",
            )
        if own_loss is not None:
            require(own_loss.ndim == 0, f"The own loss is a scalar, not of shape {tuple(own_loss.shape)}.")
            require(
                bool(torch.isfinite(own_loss)),
                f"The own loss is {own_loss.item()} for {known} known latents.",
            )
            other = Latents(
                latent_LFHW=torch.cat([latents.latent_LFHW[:known], latents.latent_LFHW[known:].flip(0) + 1]),
                pair_K3HW=latents.pair_K3HW,
                augment=latents.augment,
            )
            with torch.no_grad():
                again = adapter(network, images, other)[1]
            if again is None:
                raise AssertionError("The own loss is None for some outliers.")
            require(torch.allclose(own_loss, again, rtol=1e-4), "The own loss depends on outliers.")


def _check_learning(
    adapter: LatentAdapter, network: nn.Module, size: int, latent: tuple[int, int, int]
) -> None:
    adapter.train()
    network.train()
    before = copy.deepcopy(adapter.state_dict())
    images, latents, _ = _inputs(size, latent)
    output, own_loss = adapter(network, images, latents)
    total = output.logits_BC[IMAGES:].square().sum()
    network.zero_grad()
    total.backward(retain_graph=True)
    require(
        any(p.grad is not None and (p.grad != 0).any() for p in network.parameters()),
        "No gradient of the latents' outputs reaches the network.",
    )
    if adapter.pretrained:
        require(_same(before, adapter.state_dict()), "A pretrained adapter changes in a step.")
        return
    if own_loss is not None:
        own_loss.backward()
    require(
        any(p.grad is not None and (p.grad != 0).any() for p in adapter.parameters()),
        "The adapter is not pretrained, and no gradient of a step reaches its weights: it would never learn.",
    )


def _check_mode(adapter: LatentAdapter, network: nn.Module, size: int, latent: tuple[int, int, int]) -> None:
    images, latents, _ = _inputs(size, latent)
    for training in (True, False):
        network.train(training)
        adapter(network, images, latents)
        require(
            all(module.training == training for module in network.modules()),
            "The adapter leaves the network in another mode (training or evaluation) than it was in.",
        )


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
