"""`oodream evaluate --engine ray`: the workers of a cluster pass a network over image sets.

Each worker is sent the network and the set: pixels that are held in memory, or else the files' paths,
which then must lead to the files on every machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..core.cluster import Cluster
from ..core.device import device_of
from ..core.types import Output, Probe
from ..data.images import Images
from .inference import IMAGES_READ_AT_ONCE, Compute, joined, outputs

__all__ = ["outputs_on"]


def outputs_on(cluster: Cluster) -> Compute:
    """Has the workers of a cluster compute what `inference.outputs` does, in parts."""

    def computed(
        network: nn.Module, images: Images, device: torch.device, batch: int, probes: Sequence[Probe]
    ) -> Output:
        if not len(images):
            raise ValueError(f"The set {images.name!r} is empty.")
        sent = network if device.type == "cpu" else copy.deepcopy(network).cpu()
        work = _Pass(sent, images, device.type, batch, tuple(probes))
        parts = dict(cluster.map(work, range(0, len(images), IMAGES_READ_AT_ONCE)))
        return joined([parts[start] for start in sorted(parts)])

    return computed


@dataclass(frozen=True)
class _Pass:
    """Passes a network over the part of an image set that begins at a row."""

    network: nn.Module
    images: Images
    device: str
    batch: int
    probes: tuple[Probe, ...]

    def __call__(self) -> Callable[[int], Output]:
        return replace(self, network=self.network.to(device_of(self.device))).part

    def part(self, start: int) -> Output:
        rows = torch.arange(start, min(start + IMAGES_READ_AT_ONCE, len(self.images)))
        device = device_of(self.device)
        return outputs(self.network, self.images.subset(rows), device, self.batch, self.probes)
