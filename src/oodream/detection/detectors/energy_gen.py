"""Energy or generalised entropy, whichever is stranger."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.registry import register
from ...core.types import Head, Output
from . import learned
from .gen import GEN

__all__ = ["EnergyGEN"]


@register("detectors", "energy_gen")
@dataclass
class EnergyGEN(GEN):
    """Score = max((E - mean E) / std E, (G - mean G) / std G), E `energy` and G `gen`, means and standard
    deviations over ID training images.

    Training with outliers writes what they teach into the energy, and leaves the entropy nearly as it was. So
    an image is strange by either: the evidence for all classes is small, or it is divided among them.
    """

    mean_2_: Tensor = learned()
    std_2_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Raises ValueError where one of both is the same for all images."""
        scores_N2 = self._both(output)
        if (scores_N2 == scores_N2[0]).all(0).any():
            raise ValueError("EnergyGEN needs training images whose energy and entropy differ.")
        self.std_2_, self.mean_2_ = torch.std_mean(scores_N2, 0, correction=0)

    def _score(self, output: Output) -> Tensor:
        """In standard deviations."""
        return ((self._both(output) - self.mean_2_) / self.std_2_).amax(1)

    def _both(self, output: Output) -> Tensor:
        return torch.stack([-output.logits_BC.logsumexp(1), super()._score(output)], 1)
