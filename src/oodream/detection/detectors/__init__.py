"""Post-hoc detectors: outputs in, scores out (float64, higher = OOD). One method, one file.

What they share lives here: the checks of their input, what needs no fit, and their state, which is what `fit` has learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...core.types import Head, Output, Probe

T = TypeVar("T")
RIDGE = 1e-6


class NotFitted(RuntimeError):
    """A detector was asked to score before `fit` has shown it ID training outputs."""

    def __init__(self, detector: object) -> None:
        super().__init__(f"{type(detector).__name__} scores only after fit(output, y_N, head).")


class Fixed:
    """A detector with nothing to learn from ID training images."""

    def fit(self: T, output: Output, y_N: Tensor, head: Head | None = None) -> T:
        return self


def checked(values: Tensor, what: str) -> Tensor:
    """The values in float64; ValueError names `what` when it holds NaN or infinity, or when a network gives none."""
    if values.ndim == 2 and not values.shape[1]:
        raise ValueError(f"This network gives no {what}, and the detector needs them.")
    if not values.isfinite().all():
        raise ValueError(f"The {what} contain NaN or infinity.")
    return values.detach().double()


def needed(head: Head | None, detector: object) -> tuple[Tensor, Tensor]:
    """The head's weight and bias in float64; ValueError when there is none."""
    if head is None:
        raise ValueError(
            f"{type(detector).__name__} needs the network's last layer, and this network shows none."
        )
    return checked(head.weight_CF, "head's weights"), checked(head.bias_C, "head's biases")


def seen(output: Output, probe: Probe) -> Tensor:
    """What `probe` has made of the images, in float64; ValueError when it was not computed."""
    if probe.key not in output.probes:
        raise ValueError(
            f"These outputs were made without the probe {probe.key!r}: pass the detector's probes to `outputs`."
        )
    return checked(output.probes[probe.key], "probes")


def every_class(y_N: Tensor, classes: int, detector: object) -> Tensor:
    """How many samples each class has; ValueError names those without any."""
    count_C = y_N.bincount(minlength=classes)
    if len(count_C) > classes:
        raise ValueError(f"The labels go up to {len(count_C) - 1}, and the network knows {classes} classes.")
    if missing := (count_C == 0).nonzero()[:, 0].tolist():
        raise ValueError(
            f"{type(detector).__name__} has no training sample of class {', '.join(map(str, missing))}."
        )
    return count_C


def class_means(z_NF: Tensor, y_N: Tensor, count_C: Tensor) -> Tensor:
    """The mean of each class's rows (C, F)."""
    return z_NF.new_zeros(len(count_C), z_NF.shape[1]).index_add_(0, y_N, z_NF) / count_C[:, None]


def probes_of(detectors: Sequence[Any]) -> list[Probe]:
    """The probes that detectors need, each once."""
    return list(
        {probe.key: probe for detector in detectors for probe in getattr(detector, "probes", ())}.values()
    )


def state(detector: Any) -> dict[str, Tensor]:
    """What `fit` has learnt, by name; NotFitted before."""
    found = {f.name: getattr(detector, f.name) for f in _learnt(detector)}
    if any(value is None for value in found.values()):
        raise NotFitted(detector)
    return found


def restore(detector: T, learnt: Mapping[str, Tensor]) -> T:
    """The detector as `state` found it; ValueError when that was of another detector."""
    if unlike := {f.name for f in _learnt(detector)} ^ learnt.keys():
        raise ValueError(
            f"This is not what a {type(detector).__name__} has learnt: {', '.join(sorted(unlike))}."
        )
    for name, tensor in learnt.items():
        setattr(detector, name, tensor)
    return detector


def _learnt(detector: Any) -> list[Field[Any]]:
    return [f for f in fields(detector) if not f.init]


def fitted() -> Any:
    """A field that `fit` fills."""
    return field(default=None, init=False, repr=False)


def log_probabilities(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of every class (N, C), p the softmax; of the most likely class both come from the others' sum."""
    every_N1, best_N1 = logits_NC.logsumexp(1, keepdim=True), logits_NC.argmax(1, keepdim=True)
    log_p_NC = logits_NC - every_N1
    others_N1 = logits_NC.scatter(1, best_N1, -torch.inf).logsumexp(1, keepdim=True)
    log_best_N1 = -torch.nn.functional.softplus(others_N1 - logits_NC.gather(1, best_N1))
    log_rest_NC = torch.log1p(-log_p_NC.exp().clamp(max=0.5))  # only the best class has more than a half
    return log_p_NC.scatter(1, best_N1, log_best_N1), log_rest_NC.scatter(1, best_N1, others_N1 - every_N1)


def unit(z_NF: Tensor) -> Tensor:
    """Rows scaled to norm one; a row of zeros stays."""
    return torch.nn.functional.normalize(z_NF, dim=1)


@dataclass
class Shaped:
    """Score = -log sum_c exp f_c(x) of features that a subclass has reshaped, as it has learnt to from ID training features.

    On pooled features, as OpenOOD does it; where a network's features can be negative, their negative part counts as none.
    """

    weight_CF_: Tensor | None = field(default=None, init=False, repr=False)
    bias_C_: Tensor | None = field(default=None, init=False, repr=False)

    def learn(self, z_NF: Tensor) -> None:
        """Takes from ID training features what `shape` needs: nothing, unless a subclass does."""

    def shape(self, z_NF: Tensor) -> Tensor:
        """The reshaped features: as they are, unless a subclass does otherwise."""
        return z_NF

    def fit(self: T, output: Output, y_N: Tensor, head: Head | None = None) -> T:
        """Keeps the head; ValueError for NaN or a network without one."""
        self.weight_CF_, self.bias_C_ = needed(head, self)  # type: ignore[attr-defined]
        self.learn(checked(output.z_BF, "features"))  # type: ignore[attr-defined]
        return self

    def score(self, output: Output) -> Tensor:
        """float64 (N,), in nats, higher = OOD; NotFitted before `fit`, ValueError for NaN or infinite features."""
        if self.weight_CF_ is None or self.bias_C_ is None:
            raise NotFitted(self)
        return -(self.shape(checked(output.z_BF, "features")) @ self.weight_CF_.T + self.bias_C_).logsumexp(1)


def share(value: float, what: str) -> float:
    """A share strictly between 0 and 1; ValueError for any other."""
    if not 0 < value < 1:
        raise ValueError(f"{what} is a share between 0 and 1, not {value}.")
    return value


def quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of all values (linear between order statistics), a scalar; of any number of values."""
    ordered = values.flatten().sort().values
    at = q * (len(ordered) - 1)
    low, part = int(at), at - int(at)
    return ordered[low] + part * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def whitening(residual_NF: Tensor) -> Tensor:
    """L'^-1 (F, F) with S = L L', S the mean of the rows' outer products; z L'^-1 has unit covariance.

    RIDGE * trace(S) / F is added to the diagonal, so that features which never vary stay invertible whatever the features' scale.
    ValueError when nothing varies.
    """
    cov_FF = residual_NF.T @ residual_NF / len(residual_NF)
    spread = cov_FF.diagonal().mean()
    if spread == 0:
        raise ValueError("Distances in units of spread need features that vary within classes.")
    eye_FF = torch.eye(len(cov_FF), dtype=cov_FF.dtype, device=cov_FF.device)
    factor_FF = torch.linalg.cholesky(cov_FF + RIDGE * spread * eye_FF)
    return torch.linalg.solve_triangular(factor_FF, eye_FF, upper=False).T
