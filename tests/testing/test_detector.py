"""The check for authors of detectors: it passes short right ones, and says which rule a wrong one breaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from oodream.core.types import Head, Output
from oodream.detection.detectors import BaseDetector, NotFitted, learned
from oodream.testing.detector import check_detector


@dataclass
class Cosine(BaseDetector):
    """The shortest way: what it reads, what it learns, and two formulas."""

    reads: ClassVar = ("features",)

    scale: float = 1.0
    mean_F_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        means = torch.stack([output.z_BF[y_N == c].mean(0) for c in y_N.unique()])
        self.mean_F_ = torch.nn.functional.normalize(means, dim=1)

    def _score(self, output: Output) -> Tensor:
        return -self.scale * (torch.nn.functional.normalize(output.z_BF, dim=1) @ self.mean_F_.T).amax(1)


@dataclass
class Alone:
    """A dataclass with `fit` and `score` that owes nothing to the package."""

    mean_F_: Tensor | None = field(default=None, init=False)

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        if not output.z_BF.isfinite().all() or not output.z_BF.shape[1]:
            raise ValueError("The features contain NaN or infinity, or there are none.")
        means = torch.stack([output.z_BF[y_N == c].mean(0) for c in y_N.unique()])
        self.mean_F_ = torch.nn.functional.normalize(means.double(), dim=1)
        return self

    def score(self, output: Output) -> Tensor:
        if self.mean_F_ is None:
            raise NotFitted(self)
        if not output.z_BF.isfinite().all():
            raise ValueError("The features contain NaN or infinity.")
        return -(torch.nn.functional.normalize(output.z_BF.double(), dim=1) @ self.mean_F_.T).amax(1)


@dataclass
class Distance(BaseDetector):
    """The distance from the mean of all known features, which lie in clusters around it."""

    reads: ClassVar = ("features",)

    scale: float = 1.0
    mean_F_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.mean_F_ = output.z_BF.mean(0)

    def _score(self, output: Output) -> Tensor:
        return self.scale * (output.z_BF - self.mean_F_).norm(dim=1)


@dataclass
class Norm(BaseDetector):
    """Known features are longer."""

    reads: ClassVar = ("features",)

    scale: float = 1.0

    def _score(self, output: Output) -> Tensor:
        return -self.scale * output.z_BF.norm(dim=1)


class Forgetful(Alone):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        super().fit(output, y_N, head)


class Upside(Alone):
    def score(self, output: Output) -> Tensor:
        return -super().score(output)


class Single(Alone):
    def score(self, output: Output) -> Tensor:
        return super().score(output).float()


class Column(Alone):
    def score(self, output: Output) -> Tensor:
        return super().score(output)[:, None]


class OfTheBatch(Alone):
    def score(self, output: Output) -> Tensor:
        score_N = super().score(output)
        return score_N - score_N.mean()


class Ranked(Alone):
    def score(self, output: Output) -> Tensor:
        score_N = super().score(output)
        return score_N + 0.01 * torch.arange(len(score_N))


class Random(Alone):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        super().fit(output, y_N, head)
        assert self.mean_F_ is not None
        self.mean_F_ = self.mean_F_ + 0.01 * torch.randn(self.mean_F_.shape)
        return self


class Unsteady(Alone):
    """Every one that is made is another one."""

    made = 0

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        super().fit(output, y_N, head)
        Unsteady.made += 1
        assert self.mean_F_ is not None
        self.mean_F_ = self.mean_F_ * (1 + 0.01 * Unsteady.made)
        return self


class Meddling(Alone):
    def score(self, output: Output) -> Tensor:
        score_N = super().score(output)
        output.z_BF.mul_(1.5)
        return score_N


@dataclass
class Scribbling(Cosine):
    """Changes what it reads, which is a copy of float32 and the thing itself of float64."""

    def _score(self, output: Output) -> Tensor:
        score_N = super()._score(output)
        output.z_BF.mul_(2)
        return score_N


@dataclass
class Misspelt(Cosine):
    reads: ClassVar = ("feature",)


class Eager(Alone):
    def score(self, output: Output) -> Tensor:
        return super().score(output) if self.mean_F_ is not None else torch.zeros(len(output))


class Secretive(Alone):
    secret = 0.0

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        self.secret = float(output.z_BF.mean())
        return super().fit(output, y_N, head)

    def score(self, output: Output) -> Tensor:
        return super().score(output) + self.secret


class Credulous(Alone):
    def score(self, output: Output) -> Tensor:
        z_BF = output.z_BF.nan_to_num()
        return super().score(Output(logits_BC=output.logits_BC, z_BF=z_BF))


class CredulousFit(Alone):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        return super().fit(Output(logits_BC=output.logits_BC, z_BF=output.z_BF.nan_to_num()), y_N, head)


class Headstrong(Alone):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        assert head.weight_CF is not None  # type: ignore[union-attr]
        return super().fit(output, y_N, head)


class Mumbling(Alone):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        if len(output) < 13:
            raise ValueError("zero-size array to reduction operation")
        return super().fit(output, y_N, head)


class Dividing(Alone):
    def score(self, output: Output) -> Tensor:
        spread_N = (output.z_BF.double() - output.z_BF.double()[:, :1]).abs().sum(1)
        return super().score(output) / spread_N.ceil().clamp(max=1)


@dataclass
class Taught(BaseDetector):
    """The direction from known features to outliers'."""

    reads: ClassVar = ("features",)
    uses_outliers: ClassVar[bool] = True

    way_F_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.way_F_ = output.z_BF[y_N < 0].mean(0) - output.z_BF[y_N >= 0].mean(0)

    def _score(self, output: Output) -> Tensor:
        return output.z_BF @ self.way_F_


class Alike(Alone):
    """Takes outliers and does without them."""

    uses_outliers = True

    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        known = Output(logits_BC=output.logits_BC[y_N >= 0], z_BF=output.z_BF[y_N >= 0])
        return super().fit(known, y_N[y_N >= 0], head)


class Puzzled(Alike):
    def fit(self, output: Output, y_N: Tensor, head: Head | None = None) -> Any:
        if (y_N >= 0).all():
            raise ValueError("mean of an empty slice")
        return super().fit(output, y_N, head)


class Undecorated(BaseDetector):
    def _score(self, output: Output) -> Tensor:
        return -output.logits_BC.logsumexp(1)


@dataclass
class Listed(Alone):
    layers: Any = None


@dataclass
class Searched(Alone):
    GRID: ClassVar = {"k": (1, 2)}


@dataclass
class Searched2(Alone):
    GRID: ClassVar = {"k": (1, -2)}
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError("k must be at least 0.")


WRONG = [
    (Forgetful, "`fit` must return the detector itself"),
    (Upside, "Scores must be higher for OOD"),
    (Single, "must be float64, not torch.float32"),
    (Column, r"`score` of 1 outputs must have shape \(1,\), not \(1, 1\)"),
    (OfTheBatch, "must not depend on the batch"),
    (Ranked, "must not depend on the batch"),
    (Random, "generators of its own"),
    (Unsteady, "seed what is random"),
    (Meddling, "must leave the tensors that it is given as they are"),
    (Scribbling, "must leave the tensors that it is given as they are"),
    (
        Misspelt,
        r"Misspelt\.reads: 'feature' is unknown; there are logits, features, labels, head,",
    ),
    (Eager, "must raise NotFitted"),
    (Secretive, "must be in the learned fields"),
    (Credulous, "`score` of outputs that hold nan must raise ValueError"),
    (CredulousFit, "`fit` on outputs that hold nan must raise ValueError"),
    (Headstrong, "shows no last layer it must score or raise ValueError, not AttributeError"),
    (Mumbling, "With fewer images than features a ValueError must say what is missing, not: zero-size array"),
    (Dividing, "With constant features it gives scores that are not finite"),
    (Alike, "A detector that uses outliers must raise ValueError where `fit` gets none"),
    (Puzzled, "A ValueError must say that outliers are missing, not: mean of an empty slice"),
    (Undecorated, "must be a dataclass"),
    (Listed, "The option layers must be a number, a text or a boolean, not None"),
    (Searched, "GRID names no options: k"),
    (Searched2, r"GRID holds values of k with which it cannot be made: \[-2\]"),
]


@pytest.mark.parametrize("right", [Cosine, Alone, Taught, Distance, Norm])
def test_short_right_detectors_pass(right: Any) -> None:
    check_detector(right)


def test_options_and_dotted_paths() -> None:
    check_detector(f"{__name__}:Cosine", scale=3.0)
    with pytest.raises(AssertionError, match=r"^tests\.testing\.test_detector:Upside: Scores must be higher"):
        check_detector(f"{__name__}:Upside")


@pytest.mark.parametrize("right", [Cosine, Distance, Norm])
def test_a_reversed_sign_is_told(right: Any) -> None:
    sentence = r"Scores must be higher for OOD, .*: \d\.\d% of pairs .*The sign of the score is reversed"
    with pytest.raises(AssertionError, match=sentence):
        check_detector(right, scale=-1.0)


@pytest.mark.parametrize(("wrong", "rule"), WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_rule_is_named(wrong: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule) as error:
        check_detector(wrong)
    assert str(error.value).startswith(f"{wrong.__name__}: ")


def test_what_goes_wrong_otherwise_is_named_with_the_rule() -> None:
    class Broken(Alone):
        def score(self, output: Output) -> Tensor:
            raise KeyError("gone")

    with pytest.raises(AssertionError, match=r"^Broken: it raises KeyError \('gone'\)"):
        check_detector(Broken)


def test_a_detector_must_define_its_score() -> None:
    @dataclass
    class Nothing(BaseDetector):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


def test_a_learned_field_that_fit_does_not_set_is_named() -> None:
    class Elsewhere(Cosine):
        def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
            self.mean_ = output.z_BF.mean(0)

    with pytest.raises(AssertionError, match=r"^Elsewhere: .*`_fit` did not set mean_F_: it fills each"):
        check_detector(Elsewhere)


def test_reads_is_named_where_scores_are_of_what_it_does_not_read() -> None:
    @dataclass
    class Norm(BaseDetector):
        def _score(self, output: Output) -> Tensor:
            return output.z_BF.norm(dim=1)

    with pytest.raises(
        AssertionError, match=r"not torch.float32.* here reads = \(.logits.,\).*ClassVar = \(.features"
    ):
        check_detector(Norm)


def test_learned_fields_without_a_fit_are_named() -> None:
    @dataclass
    class Learns(BaseDetector):
        mean_F_: Tensor = learned()

        def _score(self, output: Output) -> Tensor:
            return output.logits_BC.sum(1)

    with pytest.raises(AssertionError, match="declares learned fields and does not define _fit"):
        check_detector(Learns)
