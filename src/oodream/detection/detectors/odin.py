"""Softmax probability at a temperature, after a step that makes the image look more like its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.options import Range
from ...core.registry import register
from ...core.types import ForwardPass, Output, Probe
from . import BaseDetector
from .msp import log_unsure

__all__ = ["ODIN", "Perturbed"]


@dataclass(frozen=True)
class Perturbed:
    """The logits of x - epsilon sign(-d log max softmax(f(x) / T) / dx), pixels in [0, 1]."""

    temperature: float
    epsilon: float
    wants: str = "gradient"
    for_fit: bool = False

    @property
    def key(self) -> str:
        return f"odin T={self.temperature:g} epsilon={self.epsilon:g}"

    def __call__(self, forward: ForwardPass) -> Tensor:
        logits_BC = forward.output.logits_BC / self.temperature
        loss = F.cross_entropy(logits_BC, logits_BC.detach().argmax(1), reduction="sum")
        (slope_B3HW,) = torch.autograd.grad(loss, forward.images_B3HW, retain_graph=True)
        with torch.no_grad():
            return forward.model(forward.images_B3HW - 255 * self.epsilon * slope_B3HW.sign()).logits_BC


@register("detectors", "odin")
@dataclass
class ODIN(BaseDetector):
    """Score = log(1 - max softmax(f(x') / T)) (Liang et al. 2018).

    x' = x - `epsilon` sign(-d log max softmax(f(x) / T) / dx); epsilon is in units of pixels in [0, 1],
    before normalisation.
    """

    reads: ClassVar = ()
    GRID: ClassVar = {"temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028)}

    temperature: Annotated[float, Range(0, open="low")] = 1000.0
    epsilon: Annotated[float, Range(0)] = 0.0014

    @property
    def probes(self) -> Sequence[Probe]:
        return [Perturbed(self.temperature, self.epsilon)]

    def _score(self, output: Output) -> Tensor:
        """At most 0."""
        return log_unsure(output.probes[self.probes[0].key] / self.temperature)
