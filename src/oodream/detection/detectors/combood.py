"""Nearest-neighbour distance of features together with a Mahalanobis distance of every layer's extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from sklearn.preprocessing import PowerTransformer, StandardScaler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...core.registry import register
from ...core.types import ForwardPass, Head, Output, Probe
from . import Reads, learned
from .knn import KNN

__all__ = ["CombOOD", "Extremes"]

aten = torch.ops.aten
ACTIVATIONS = {
    aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default,
    aten.gelu.default, aten.silu.default, aten.silu_.default, aten.hardtanh.default,
    aten.hardtanh_.default, aten.hardswish.default, aten.hardswish_.default,
}  # fmt: skip
LEAST = 1e-6  # distance, so that a training image has a finite score
MOST = 100.0  # exponent, so that an image unlike any has one


class _Listener(TorchDispatchMode):
    """Notes the largest and the negated smallest value, image by image, of what activation functions get."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in ACTIVATIONS:
            values_BP = args[0].detach().flatten(1)
            self.columns += [values_BP.amax(1), -values_BP.amin(1)]
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Extremes:
    """The largest and the negated smallest input of every activation function, in the network's order
    (B, 2 L).
    """

    key: str = "extremes"
    wants: str = ""
    for_fit: bool = True

    def __call__(self, forward: ForwardPass) -> Tensor:
        with torch.no_grad(), _Listener() as listener:
            forward.model(forward.images_B3HW)
        if not listener.columns:
            raise ValueError("CombOOD needs a network with activation functions (ReLU, GELU, SiLU, …).")
        return torch.stack(listener.columns, dim=1).float()


@register("detectors", "combood")
@dataclass
class CombOOD(KNN):
    """Score = x' (S + I)^-1 x + sqrt(F) log(d^2): d as in `knn`, x the extremes of every layer, made Gaussian
    (Rajasekaran et al. 2024; the published code's combination).

    The extremes are the largest and the negated smallest logit, and the same of what goes into every
    activation function (Berglind et al. 2022, "XOOD"). They are standardized, then Yeo and Johnson's power
    transformation, fitted to ID training images, brings each near a standard normal distribution; S is their
    covariance.
    """

    reads: ClassVar[tuple[Reads, ...]] = ("logits", "features")
    center_E_: Tensor = learned()
    scale_E_: Tensor = learned()
    power_E_: Tensor = learned()
    mean_E_: Tensor = learned()
    whiten_EE_: Tensor = learned()

    @property
    def probes(self) -> Sequence[Probe]:
        return [Extremes()]

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        super()._fit(output, y_N, head)
        extremes = self._extremes(output).numpy()
        scaler = StandardScaler().fit(extremes)
        power = PowerTransformer(standardize=False).fit(scaler.transform(extremes))
        self.center_E_, self.scale_E_ = torch.from_numpy(scaler.mean_), torch.from_numpy(scaler.scale_)
        self.power_E_ = torch.from_numpy(power.lambdas_)
        x_NE = self._powers(output)
        spread_E = x_NE.std(0, correction=0)
        self.mean_E_ = x_NE.mean(0)
        spread_E = spread_E.where(spread_E > 0, torch.ones_like(spread_E))
        x_NE = (x_NE - self.mean_E_) / spread_E
        factor_EE = torch.linalg.cholesky(
            x_NE.T @ x_NE / len(x_NE) + torch.eye(x_NE.shape[1], dtype=x_NE.dtype)
        )
        self.whiten_EE_ = torch.linalg.inv(factor_EE).T / spread_E[:, None]

    def _score(self, output: Output) -> Tensor:
        """In nats, but for a constant."""
        mahalanobis_N = ((self._powers(output) - self.mean_E_) @ self.whiten_EE_).square().sum(1)
        distance_N = super()._score(output).clamp(min=LEAST)
        return mahalanobis_N + math.sqrt(output.z_BF.shape[1]) * 2 * distance_N.log()

    def _extremes(self, output: Output) -> Tensor:
        """The extremes (N, E) of logits and layers."""
        logits_NC = output.logits_BC
        ends_N2 = torch.stack([logits_NC.amax(1), -logits_NC.amin(1)], dim=1)
        return torch.cat([ends_N2, output.probes[Extremes.key]], dim=1)

    def _powers(self, output: Output) -> Tensor:
        """The extremes, standardized and transformed (Yeo & Johnson 2000)."""
        x_NE = (self._extremes(output) - self.center_E_) / self.scale_E_
        power_NE = torch.where(x_NE < 0, 2 - self.power_E_, self.power_E_)
        log_NE = x_NE.abs().log1p()
        small = power_NE.abs() < 1e-12
        raised_NE = (power_NE * log_NE).clamp(max=MOST).expm1() / power_NE.where(
            ~small, torch.ones_like(x_NE)
        )
        return torch.where(small, log_NE, raised_NE) * x_NE.sign()
