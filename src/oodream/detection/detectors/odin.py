"""Softmax probability at a temperature, after a step that makes the image look more like its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.registry import register
from ...core.types import ForwardPass, Output, Probe
from . import Fixed, seen
from .msp import log_unsure


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

    def __call__(self, seen: ForwardPass) -> Tensor:
        logits_BC = seen.output.logits_BC / self.temperature
        loss = F.cross_entropy(logits_BC, logits_BC.detach().argmax(1), reduction="sum")
        (slope,) = torch.autograd.grad(loss, seen.images_B3HW, retain_graph=True)
        with torch.no_grad():
            return seen.model(seen.images_B3HW - 255 * self.epsilon * slope.sign()).logits_BC


@register("detectors", "odin")
@dataclass
class ODIN(Fixed):
    """Score = log(1 - max softmax(f(x') / T)) (Liang et al. 2018).

    x' = x - `epsilon` sign(-d log max softmax(f(x) / T) / dx); epsilon is in units of pixels in [0, 1], before normalisation.
    """

    GRID: ClassVar = {"temperature": (1.0, 10.0, 100.0, 1000.0), "epsilon": (0.0, 0.0014, 0.0028)}

    temperature: float = 1000.0
    epsilon: float = 0.0014

    @property
    def views(self) -> Sequence[Probe]:
        return [Perturbed(self.temperature, self.epsilon)]

    def score(self, output: Output) -> Tensor:
        """float64 (N,), at most 0, higher = OOD; ValueError for NaN, infinity or outputs without the probe."""
        return log_unsure(seen(output, self.probes[0]) / self.temperature)
