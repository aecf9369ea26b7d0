"""Post-hoc detectors: outputs in, scores out (float64, higher = OOD). One method, one file.

What detectors share lives here: the base class, which checks what goes in before the method sees it; energies
of reshaped features; what `fit` has learned, for files; and a few functions of tensors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

import torch
from torch import Tensor

from ...core.faults import blamed, require
from ...core.options import Option, Section
from ...core.types import OOD, Detector, Head, Output, Probe

__all__ = [
    "RIDGE",
    "BaseDetector",
    "NoOutliers",
    "NotFitted",
    "Reads",
    "ShapedEnergy",
    "class_means",
    "count_classes",
    "learned",
    "learned_fields",
    "log_probabilities",
    "probes_of",
    "quantile",
    "restore",
    "score_unchecked",
    "scores_of",
    "state",
    "unit",
    "whitening",
]

T = TypeVar("T")
D = TypeVar("D", bound="BaseDetector")
Reads = Literal["logits", "features", "labels", "head", "class weights"]
RIDGE = 1e-6


class NoOutliers(ValueError):
    """A detector that learns from outliers was given none; `how` says how to give it some."""

    def __init__(self, detector: object, how: str) -> None:
        super().__init__(f"{type(detector).__name__} learns from outliers, and there are none: {how}.")


class NotFitted(RuntimeError):
    """A detector was asked to score before `fit` has shown it ID training outputs."""

    def __init__(self, detector: object) -> None:
        super().__init__(f"{type(detector).__name__} scores only after fit(output, y_N, head).")


def learned() -> Any:
    """A field that `fit` fills with a tensor; None before."""
    return field(default=None, init=False, repr=False)


class BaseDetector(Section, ABC):
    """A detector that checks, then scores. A subclass is a dataclass that defines `_score`.

    Its fields are its options, with a `Range` where a number has one, which is checked when the detector is
    made. A detector that learns from ID training images declares what it learns by `learned()`, a tensor
    each, and fills these fields in `_fit`. `_fit` and `_score` get the parts named in `reads`, and the
    `probes`, as finite float64. With `uses_outliers`, some of the rows that `fit` and `_fit` get are
    outliers, and their label is -1.
    """

    reads: ClassVar[tuple[Reads, ...]] = ("logits",)
    """what the detector looks at; an output, labels or a head without it are refused"""
    uses_outliers: ClassVar[bool] = False
    """whether the detector learns from outliers, too"""
    GRID: ClassVar[Mapping[str, Sequence[Option]]] = {}
    """values of options that `tune` tries"""

    def __post_init__(self) -> None:
        super().__post_init__()
        name, there = f"{type(self).__name__}.reads", get_args(Reads)
        require(isinstance(self.reads, tuple), f"{name} is a tuple of names, not {self.reads!r}.")
        for part in self.reads:
            require(part in there, f"{name}: {part!r} is unknown; there are {', '.join(there)}.")

    @property
    def probes(self) -> Sequence[Probe]:
        """What the detector needs of an image beside the network's outputs."""
        return ()

    def fit(self: D, output: Output, y_N: Tensor, head: Head | None = None) -> D:
        """Learns from outputs for ID training images, their labels (N,) and the network's head; returns
        itself.

        Raises BrokenRule where `_fit` leaves a learned field empty; ValueError for no images, NaN or
        infinity, labels that are no classes, and for what the network does not show; NoOutliers where the
        detector needs outliers and no label is -1.
        """
        if not learned_fields(self):
            return self
        known_N = y_N != OOD if self.uses_outliers else torch.ones_like(y_N, dtype=torch.bool)
        if not known_N.any():
            raise ValueError(f"{type(self).__name__} has no training sample.")
        if self.uses_outliers and known_N.all():
            raise NoOutliers(self, f"give `fit` some with the label {OOD}")
        if "labels" in self.reads:
            _check_labels(y_N[known_N], output.logits_BC.shape[1])
        checked = _checked(self, output, [probe for probe in self.probes if probe.for_fit])
        self._fit(checked, y_N, cast(Head, _checked_head(self, head)))
        unset = [f.name for f in learned_fields(self) if getattr(self, f.name) is None]
        require(
            not unset,
            f"`_fit` did not set {', '.join(unset)}: it fills each field under its declared name.",
        )
        return self

    def score(self, output: Output) -> Tensor:
        """The scores (N,) of N outputs, float64, higher = OOD.

        Raises NotFitted before `fit` where the detector learns; ValueError for NaN or infinity, for outputs
        without the probes, and for what the network does not show.
        """
        if any(getattr(self, f.name) is None for f in learned_fields(self)):
            raise NotFitted(self)
        return self._score(_checked(self, output, self.probes))

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        """Fills the learned fields; `head` is None where "head" is not read and the network shows none."""
        raise NotImplementedError(f"{type(self).__name__} declares learned fields and does not define _fit.")

    @abstractmethod
    def _score(self, output: Output) -> Tensor:
        """The scores (N,), without any check: it is also what an ONNX graph is traced from."""


@dataclass
class ShapedEnergy(BaseDetector):
    """Score = -log sum_c exp f_c(x), f the head's logits of features that a subclass has reshaped, in nats.

    On pooled features, as OpenOOD does it. Where a network's features can be negative, their negative part
    counts as none.
    """

    reads: ClassVar = ("features", "head")

    weight_CF_: Tensor = learned()  # noqa: RUF009
    bias_C_: Tensor = learned()  # noqa: RUF009

    def shape(self, z_NF: Tensor) -> Tensor:
        """The reshaped features: as they are, unless a subclass does otherwise."""
        return z_NF

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.weight_CF_, self.bias_C_ = head.weight_CF, head.bias_C

    def _score(self, output: Output) -> Tensor:
        return -(self.shape(output.z_BF) @ self.weight_CF_.T + self.bias_C_).logsumexp(1)


def scores_of(detector: Detector, output: Output) -> Tensor:
    """`detector.score`, checked: scores (N,) of N outputs, on the CPU.

    Raises ValueError that names the detector where it gives anything else, or raises (see `faults.blamed`).
    """
    with blamed(type(detector).__name__, detector):
        score_N = detector.score(output)
        require(isinstance(score_N, Tensor), "It gave no tensor of scores, but", score_N)
        require(score_N.ndim == 1, f"Scores have the shape (N,); it gave {tuple(score_N.shape)}.")
        require(len(score_N) == len(output), f"It gave {len(score_N)} scores for {len(output)} images.")
        require(not score_N.requires_grad, "Its scores require gradients.")
    return score_N.cpu()


def score_unchecked(detector: Detector, output: Output) -> Tensor:
    """`detector.score` without its checks, for tracers, which cannot decide by a tensor's values.

    A detector that is no `BaseDetector` scores as it always does.
    """
    if isinstance(detector, BaseDetector):
        return detector._score(_converted(detector, output, detector.probes))
    return detector.score(output)


def probes_of(detectors: Sequence[Any]) -> list[Probe]:
    """The probes that detectors need, each once."""
    probes = [probe for detector in detectors for probe in getattr(detector, "probes", ())]
    return list({probe.key: probe for probe in probes}.values())


def learned_fields(detector: Any) -> list[Field[Any]]:
    """The fields that `fit` fills; none where a detector has nothing to learn."""
    return [f for f in fields(detector) if not f.init]


def state(detector: Any) -> dict[str, Tensor]:
    """What `fit` has learned, by the field's name; NotFitted before."""
    values = {f.name: getattr(detector, f.name) for f in learned_fields(detector)}
    if any(value is None for value in values.values()):
        raise NotFitted(detector)
    return values


def restore(detector: T, values: Mapping[str, Tensor]) -> T:
    """The detector with what `state` gave; ValueError when that was of another detector."""
    if unlike := {f.name for f in learned_fields(detector)} ^ values.keys():
        raise ValueError(
            f"This is not what a {type(detector).__name__} has learned: {', '.join(sorted(unlike))}."
        )
    for name, tensor in values.items():
        setattr(detector, name, tensor)
    return detector


def count_classes(
    y_N: Tensor, classes: int, detector: object, kind: str = "training sample", least: int = 1
) -> Tensor:
    """How many samples each class has (C,); ValueError names the classes with fewer than `least`."""
    count_C = y_N.bincount(minlength=classes)
    if few := (count_C < least).nonzero()[:, 0].tolist():
        lacks = f"no {kind}" if least == 1 else f"fewer than {least} {kind}s"
        raise ValueError(f"{type(detector).__name__} has {lacks} of class {', '.join(map(str, few))}.")
    return count_C


def class_means(z_NF: Tensor, y_N: Tensor, count_C: Tensor) -> Tensor:
    """The mean of each class's rows (C, F)."""
    return z_NF.new_zeros(len(count_C), z_NF.shape[1]).index_add_(0, y_N, z_NF) / count_C[:, None]


def log_probabilities(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of every class (N, C), p the softmax.

    Both come from the other classes' sum for the most likely class, so that confident outputs do not tie.
    """
    every_N1, best_N1 = logits_NC.logsumexp(1, keepdim=True), logits_NC.argmax(1, keepdim=True)
    log_p_NC = logits_NC - every_N1
    others_N1 = logits_NC.scatter(1, best_N1, -torch.inf).logsumexp(1, keepdim=True)
    log_best_N1 = -torch.nn.functional.softplus(others_N1 - logits_NC.gather(1, best_N1))
    log_rest_NC = torch.log1p(-log_p_NC.exp().clamp(max=0.5))  # only the best class has more than a half
    return log_p_NC.scatter(1, best_N1, log_best_N1), log_rest_NC.scatter(1, best_N1, others_N1 - every_N1)


def unit(z_NF: Tensor) -> Tensor:
    """Rows scaled to norm one; a row of zeros stays."""
    return torch.nn.functional.normalize(z_NF, dim=1)


def quantile(values: Tensor, q: float) -> Tensor:
    """The q-quantile of all values (linear between order statistics), a scalar; of any number of values."""
    ordered = values.flatten().sort().values
    at = q * (len(ordered) - 1)
    low, part = int(at), at - int(at)
    return ordered[low] + part * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def whitening(residual_NF: Tensor) -> Tensor:
    """L'^-1 (F, F) with S = L L', S the mean of the rows' outer products; z L'^-1 has unit covariance.

    RIDGE * trace(S) / F is added to the diagonal, so that features which never vary stay invertible, whatever
    the features' scale. Raises ValueError when nothing varies.
    """
    cov_FF = residual_NF.T @ residual_NF / len(residual_NF)
    spread = cov_FF.diagonal().mean()
    if spread == 0:
        raise ValueError("Distances in units of spread need features that vary within classes.")
    eye_FF = torch.eye(len(cov_FF), dtype=cov_FF.dtype, device=cov_FF.device)
    factor_FF = torch.linalg.cholesky(cov_FF + RIDGE * spread * eye_FF)
    return torch.linalg.solve_triangular(factor_FF, eye_FF, upper=False).T


def _checked(detector: BaseDetector, output: Output, probes: Sequence[Probe]) -> Output:
    name = type(detector).__name__
    for part, values in _parts(detector, output).items():
        if values.ndim == 2 and not values.shape[1]:
            raise ValueError(f"{name} needs {part}, and this network shows none.")
        _check_finite(values, part)
    for probe in probes:
        if probe.key not in output.probes:
            raise ValueError(
                f"{name} needs the probe {probe.key!r}, and these outputs were made without it: "
                "give the detector's probes to the Extractor."
            )
        _check_finite(output.probes[probe.key], "probes")
    return _converted(detector, output, probes)


def _converted(detector: BaseDetector, output: Output, probes: Sequence[Probe]) -> Output:
    parts = {part: values.detach().double() for part, values in _parts(detector, output).items()}
    return Output(
        logits_BC=parts.get("logits", output.logits_BC),
        z_BF=parts.get("features", output.z_BF),
        probes={probe.key: output.probes[probe.key].detach().double() for probe in probes},
    )


def _parts(detector: BaseDetector, output: Output) -> dict[str, Tensor]:
    parts = {"logits": output.logits_BC, "features": output.z_BF}
    return {part: values for part, values in parts.items() if part in detector.reads}


def _checked_head(detector: BaseDetector, head: Head | None) -> Head | None:
    name = type(detector).__name__
    if "head" in detector.reads and head is None:
        raise ValueError(f"{name} needs the network's last layer, and this network shows none.")
    if "class weights" in detector.reads and (head is None or head.energy_C is None):
        raise ValueError(
            f"{name} needs a classifier trained with class weights (--regularize.loss-options weighted=true)."
        )
    if head is None or not {"head", "class weights"} & set(detector.reads):
        return head
    parts = {f.name: getattr(head, f.name) for f in fields(head) if getattr(head, f.name) is not None}
    for values in parts.values():
        _check_finite(values, "weights of the network's last layer")
    return Head(**{part: values.detach().double() for part, values in parts.items()})


def _check_finite(values: Tensor, name: str) -> None:
    if not values.isfinite().all():
        raise ValueError(f"The {name} contain NaN or infinity.")


def _check_labels(y_N: Tensor, classes: int) -> None:
    if not 0 <= int(y_N.min()) <= int(y_N.max()) < classes:
        raise ValueError(
            f"Labels lie between 0 and {classes - 1}, the network's classes; there are labels from "
            f"{int(y_N.min())} to {int(y_N.max())}."
        )
