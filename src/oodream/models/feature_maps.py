"""The feature map that a network averages to its features: the module that makes it, and its outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..data.images import Images

__all__ = ["outputs_of", "pooled_module"]


@torch.no_grad()
def pooled_module(network: nn.Module, images: Images, device: torch.device) -> nn.Module:
    """The last module whose output, averaged over its positions, is z; ValueError where there is none."""
    network.eval()
    called: list[tuple[nn.Module, Tensor]] = []

    def remember(module: nn.Module, _: object, result: object) -> None:
        if isinstance(result, Tensor) and result.ndim == 4:
            called.append((module, result))

    hooks = [module.register_forward_hook(remember) for module in network.modules()]
    try:
        z = network(images.batch([0]).to(device)).z_BF
    finally:
        for hook in hooks:
            hook.remove()
    for module, result in reversed(called):
        if result.shape[1] == z.shape[1] and torch.allclose(result.mean((2, 3)), z, rtol=1e-3, atol=1e-5):
            return module
    raise ValueError(
        "This network's features are no average of a feature map, which a detector here needs (rankfeat)."
    )


@contextmanager
def outputs_of(module: nn.Module | None) -> Iterator[list[Tensor]]:
    """The outputs of `module` while this lasts; none without a module."""
    results: list[Tensor] = []
    if module is None:
        yield results
        return
    hook = module.register_forward_hook(lambda _, __, result: results.append(result.detach()))
    try:
        yield results
    finally:
        hook.remove()
