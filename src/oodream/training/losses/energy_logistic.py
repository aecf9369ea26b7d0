"""DREAM-OOD's loss: cross-entropy plus a logistic regression of ID against outliers on the energy."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import Loss, Sizes, Step, Terms
from .cross_entropy import cross_entropy

__all__ = ["EnergyLogistic"]

WIDTHS = {"monotone": (), "linear": (1, 2), "network": (1, 512, 2)}  # of the layers of a free phi


@register("losses", "energy_logistic")
class EnergyLogistic(Loss):
    """CE + beta * E[-log sigmoid(+-phi(E))], + for ID (DREAM-OOD eq. 7-8; VOS eq. 5-7).

    E is the energy, the negative logsumexp of the logits, and phi(E) = -softplus(a) * E + b. With a free
    slope the optimiser can settle on the other sign. Then training looks healthy while outliers get a *lower*
    energy than ID images, and the energy score, which the paper tests with, is upside down. The sign is
    therefore fixed by construction. ID images and outliers weigh the same whatever their numbers. With
    `weighted` E has a learned positive weight for every class (as in VOS), which the detector
    `weighted_energy` uses, too.

    As the published code has phi, with two outputs of a free sign, of which the cross-entropy is taken:
    `phi="network"` is 1-512-2 with a ReLU (ImageNet-100), `phi="linear"` 1-2 (CIFAR-100).
    """

    outliers = True

    def __init__(self, beta: float = 1.0, weighted: bool = False, phi: str = "monotone") -> None:
        super().__init__()
        if phi not in WIDTHS:
            raise ValueError(f"energy_logistic: phi is {', '.join(WIDTHS)}, not {phi!r}.")
        self.beta, self.weighted = beta, weighted
        self.log_energy_C: nn.Parameter | None = None
        self.free: nn.Sequential | None = None
        if phi == "monotone":
            self.slope = nn.Parameter(torch.tensor(0.5413))  # softplus^-1(1)
            self.offset = nn.Parameter(torch.tensor(0.0))
        else:
            layers = [part for a, b in pairwise(WIDTHS[phi]) for part in (nn.Linear(a, b), nn.ReLU())]
            self.free = nn.Sequential(*layers[:-1])

    def build(self, sizes: Sizes) -> None:
        """Gives every class the weight one, where classes have weights, and draws a published phi."""
        if self.weighted:
            self.log_energy_C = nn.Parameter(torch.zeros(sizes.classes))
        for layer in self.free or ():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """As for every module; the class weights are made as long as those that are loaded."""
        if self.weighted and "log_energy_C" in state_dict:
            self.log_energy_C = nn.Parameter(torch.zeros_like(state_dict["log_energy_C"]))
        return super().load_state_dict(state_dict, *args, **options)

    @property
    def energy_C(self) -> Tensor | None:
        """The class weights (C,); None where classes have none."""
        return None if self.log_energy_C is None else self.log_energy_C.exp()

    def phi(self, logits_BC: Tensor) -> Tensor:
        """The logit (B,) for "ID"; higher for ID, as far as a published phi has learnt it."""
        weighted_BC = logits_BC if self.log_energy_C is None else logits_BC + self.log_energy_C
        if self.free is None:
            return F.softplus(self.slope) * weighted_BC.logsumexp(1) + self.offset
        unknown_B, known_B = self.free(weighted_BC.logsumexp(1)[:, None]).unbind(1)
        return known_B - unknown_B  # the logit of a softmax of two

    def forward(self, step: Step) -> Terms:
        if step.ood is None:
            raise ValueError("energy_logistic needs outliers; use cross_entropy to train without.")
        ce = cross_entropy(step.id.logits_BC, step)
        energy = 0.5 * (
            F.softplus(-self.phi(step.id.logits_BC)).mean() + F.softplus(self.phi(step.ood.logits_BC)).mean()
        )
        return Terms(total=ce + self.beta * energy, parts={"ce": ce, "energy": energy})
