"""A made-up network and its outputs, for checks of detectors.

There are four classes, each with a feature axis of its own; OOD images have small features, but for one axis
that no class uses. Whatever may tell them apart does: they are less sure of a class,
shorter than known features, and yet farther from the mean of these than they are themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.types import ForwardPass, Head, Output
from ..data.images import Images, from_array
from ..detection.detectors import probes_of

__all__ = ["CLASSES", "WIDTH", "Toy", "head", "known", "output", "pictures", "unknown"]

CLASSES, WIDTH, SIDE = 4, 24, 6
LARGE_KNOWN, LARGE_UNKNOWN = 6.0, 5.25  # the large feature


class Toy(nn.Module):
    """A network whose features are the mean of a feature map: pixels, mixed between channels."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(7)
        self.mix, self.relu = nn.Conv2d(3, WIDTH, 1, bias=False), nn.ReLU()
        self.head = nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            self.mix.weight.copy_(torch.randn(self.mix.weight.shape, generator=g))
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=g))
            hues = 255 * torch.rand(64, 3, 1, 1, generator=g) / 2
            self.head.bias.copy_(-self(hues).logits_BC.mean(0) + self.head.bias)

    def forward(self, images_B3HW: Tensor) -> Output:
        z_BF = self.relu(self.mix(images_B3HW.float() / 255)).mean((2, 3))
        return Output(logits_BC=self.head(z_BF), z_BF=z_BF)


def pictures(n: int, seed: int) -> Images:
    """Random pictures, labelled as the toy network sees them."""
    g = torch.Generator().manual_seed(seed)
    hue = torch.rand(n, 3, 1, 1, generator=g)
    pixels = (hue * torch.randint(0, 256, (n, 3, SIDE, SIDE), generator=g)).to(torch.uint8)
    with torch.no_grad():
        y_N = Toy()(pixels).logits_BC.argmax(1)
    return from_array("toy", pixels, y_N, [str(c) for c in range(CLASSES)])


def head() -> Head:
    """A last layer with a feature axis for each class, and class weights."""
    noise = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(5))
    return Head(
        weight_CF=torch.eye(CLASSES, WIDTH) + 0.02 * noise,
        bias_C=torch.linspace(-0.1, 0.1, CLASSES),
        energy_C=torch.linspace(0.5, 1.5, CLASSES),
    )


def output(z_NF: Tensor, detectors: Sequence[Any] = ()) -> Output:
    """The output with these features, and the detectors' probes as if nothing had been done to the images.

    So a probe that gives logits gives these logits, and one that gives features these features.
    """
    logits_NC = z_NF @ head().weight_CF.T + head().bias_C
    stands_for = {CLASSES: logits_NC, WIDTH: z_NF}
    probes = {probe.key: stands_for.get(_width(probe), z_NF).clone() for probe in probes_of(detectors)}
    return Output(logits_BC=logits_NC, z_BF=z_NF, probes=probes)


def known(n: int, seed: int, detectors: Sequence[Any] = ()) -> tuple[Output, Tensor]:
    """Outputs and labels of known images: rectified features, large on their class's axis."""
    g = torch.Generator().manual_seed(seed)
    y_N = torch.arange(n) % CLASSES
    z_NF = LARGE_KNOWN * torch.eye(CLASSES, WIDTH)[y_N] + 0.5 * torch.randn(n, WIDTH, generator=g)
    return output(z_NF.clamp(min=0), detectors), y_N


def unknown(n: int, seed: int, detectors: Sequence[Any] = ()) -> Output:
    """Outputs of OOD images: small features, and a large one on an axis that no class uses."""
    g = torch.Generator().manual_seed(seed)
    small_NF = (0.2 * torch.randn(n, WIDTH, generator=g)).clamp(min=0)
    return output(small_NF + LARGE_UNKNOWN * torch.eye(WIDTH)[-1], detectors)


def _width(probe: Any) -> int:
    """How wide a probe's rows are, on the toy network."""
    network = Toy()
    images = pictures(2, 0).batch([0, 1]).float().requires_grad_()
    maps: list[Tensor] = []
    hook = network.relu.register_forward_hook(lambda _, __, result: maps.append(result.detach()))
    result = network(images)
    hook.remove()
    forward = ForwardPass(model=network, images_B3HW=images, output=result, map_BFHW=maps[0])
    return int(probe(forward).shape[1])
