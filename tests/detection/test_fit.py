"""What detectors are fitted to: known images, and outliers for those that learn from some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp
from torch import Tensor

from oodream.core.registry import make
from oodream.core.types import Head, Output
from oodream.data.images import Images, ImageSet
from oodream.detection.detectors import BaseDetector, NoOutliers, learned, restore, state
from oodream.detection.evaluate import evaluate
from oodream.detection.fit import Lesson, Training, training_outputs
from oodream.detection.tune import tune
from oodream.models.inference import Extractor
from tests.helpers.tint import Tint, tinted

FIT, TEST, OUTLIERS = tinted(90, 0), tinted(60, 1), tinted(45, 2, 30)
UNKNOWN = ImageSet(name="dull", group="far", images=tinted(40, 3, 20).as_ood())


@dataclass
class Spy(BaseDetector):
    """Remembers what it was shown."""

    reads: ClassVar = ("features",)
    uses_outliers: ClassVar[bool] = True

    labels_N_: Tensor = learned()
    z_NF_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.labels_N_, self.z_NF_ = y_N, output.z_BF

    def _score(self, output: Output) -> Tensor:
        return output.z_BF.sum(1)


@dataclass
class Innocent(Spy):
    uses_outliers: ClassVar[bool] = False


def test_outliers_come_behind_the_known_images_with_the_label_of_ood() -> None:
    extractor = Extractor(Tint())
    spy = training_outputs(extractor, [Spy()], FIT, OUTLIERS).fit(Spy())
    assert spy.labels_N_.tolist() == FIT.labels.tolist() + [-1] * 45
    both = torch.cat([extractor(FIT).z_BF, extractor(OUTLIERS).z_BF]).double()
    assert torch.equal(spy.z_NF_, both)


def test_of_a_lesson_the_known_images_stand_in_place_of_the_training_images() -> None:
    extractor, shown = Extractor(Tint()), [tinted(30, 5, 60), tinted(12, 6, 60)]
    lesson = Lesson(outliers=OUTLIERS, known=shown)
    spy = training_outputs(extractor, [Spy()], FIT, lesson).fit(Spy())
    assert spy.labels_N_.tolist() == shown[0].labels.tolist() + shown[1].labels.tolist() + [-1] * 45
    parts = torch.cat([extractor(images).z_BF for images in (*shown, OUTLIERS)]).double()
    assert torch.equal(spy.z_NF_, parts)
    alone = training_outputs(extractor, [Spy(), Innocent()], FIT, lesson).fit(Innocent())
    assert torch.equal(alone.z_NF_, extractor(FIT).z_BF.double())


def test_a_lesson_changes_no_row_of_the_other_detectors() -> None:
    lesson = Lesson(outliers=OUTLIERS, known=[tinted(30, 5, 60)])
    raw, shown = (measured(["knn", "outlier_probe"], outliers) for outliers in (OUTLIERS, lesson))
    assert torch.equal(raw.scores["knn"]["id"], shown.scores["knn"]["id"])
    assert not torch.equal(raw.scores["outlier_probe"]["id"], shown.scores["outlier_probe"]["id"])


def test_a_detector_that_uses_none_never_sees_one() -> None:
    extractor = Extractor(Tint())
    spy = training_outputs(extractor, [Spy(), Innocent()], FIT, OUTLIERS).fit(Innocent())
    assert torch.equal(spy.labels_N_, FIT.labels)
    assert torch.equal(spy.z_NF_, extractor(FIT).z_BF.double())


def test_no_pass_over_outliers_that_nobody_uses() -> None:
    network = Tint()
    training_outputs(Extractor(network), [Innocent()], FIT, OUTLIERS)
    assert network.seen == 90


def test_without_outliers_the_message_says_what_to_give() -> None:
    with pytest.raises(NoOutliers, match="Spy learns from outliers, and there are none: give `outliers`"):
        training_outputs(Extractor(Tint()), [Spy()], FIT).fit(Spy())


def measured(names: list[str], outliers: Images | Lesson | None) -> Any:
    given = {"fit": FIT, "test": TEST, "ood": [UNKNOWN], "resamples": 20}
    return evaluate(Extractor(Tint()), names, outliers=outliers, **given)


def test_outliers_change_no_row_of_the_other_detectors() -> None:
    names = ["energy", "knn", "mahalanobis", "weiper"]
    plain, more = measured(names, None), measured([*names, "outlier_probe", "energy_probe"], OUTLIERS)
    assert more.skipped == {}
    assert [row for row in more.rows if row.detector in names] == plain.rows
    assert all(torch.equal(more.scores[name]["id"], plain.scores[name]["id"]) for name in names)


def test_where_there_are_none_such_detectors_are_left_out_with_the_reason() -> None:
    result = measured(["energy", "outlier_probe"], None)
    assert result.scores.keys() == {"energy"}
    assert "OutlierProbe learns from outliers, and there are none" in result.skipped["outlier_probe"]


def test_options_of_such_a_detector_can_be_chosen(tmp_path: Path) -> None:
    sets: dict[str, Any] = {"fit": FIT, "known": TEST, "unknown": [UNKNOWN.images]}
    detector, tried = tune(Extractor(Tint()), "outlier_probe", {}, **sets, outliers=OUTLIERS)
    assert tried.candidates == 6
    assert state(detector).keys() == {"weight_F_", "bias_"}
    with pytest.raises(NoOutliers):
        tune(Extractor(Tint()), "outlier_probe", {}, **sets)


# The two that are shipped, against their definitions


G = torch.Generator().manual_seed(1)
KNOWN_Z = torch.randn(200, 5, generator=G).double() * torch.tensor([1.0, 10, 0.1, 3, 1]) + 1
OUTLIER_Z = KNOWN_Z[:70] * 0.7 + torch.randn(70, 5, generator=G) + 0.5
KNOWN_LOGITS = 3 * torch.eye(3)[torch.arange(200) % 3].double() + torch.randn(200, 3, generator=G)
OUTLIER_LOGITS = torch.randn(70, 3, generator=G).double() + torch.tensor([1.0, 0, -1])
TRAINING = Training(
    Output(logits_BC=KNOWN_LOGITS, z_BF=KNOWN_Z),
    torch.arange(200) % 3,
    None,
    Output(logits_BC=OUTLIER_LOGITS, z_BF=OUTLIER_Z),
)


def newton(z: np.ndarray, outlier: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Weights and bias that minimise the balanced logistic loss, by Newton's method."""
    x = np.column_stack([z, np.ones(len(z))])
    weight = np.where(outlier, 0.5 / outlier.sum(), 0.5 / (~outlier).sum())
    penalty = l2 * np.diag([*np.ones(z.shape[1]), 0.0])
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = expit(x @ w)
        slope = x.T @ (weight * (p - outlier)) + penalty @ w
        curvature = x.T @ (x * (weight * p * (1 - p))[:, None]) + penalty
        w = w - np.linalg.solve(curvature, slope)
    return w[:-1], w[-1]


@pytest.mark.parametrize("l2", [0.001, 0.1, 3.0])
def test_the_outlier_probe_is_the_minimum_that_newton_finds(l2: float) -> None:
    probe = TRAINING.fit(make("detectors", "outlier_probe", l2=l2))
    z = np.concatenate([KNOWN_Z.numpy(), OUTLIER_Z.numpy()])
    mean, spread = z.mean(0), z.std(0)
    w, b = newton((z - mean) / spread, np.arange(270) >= 200, l2)
    expected = (KNOWN_Z.numpy() - mean) / spread @ w + b
    np.testing.assert_allclose(probe.score(TRAINING.known).numpy(), expected, atol=1e-4)


def test_the_outlier_probe_does_not_depend_on_the_features_scale() -> None:
    probe = TRAINING.fit(make("detectors", "outlier_probe"))
    outliers = TRAINING.outliers
    assert outliers is not None
    scale = torch.tensor([1e-3, 1, 1e3, 1, 10])
    scaled = [Output(logits_BC=o.logits_BC, z_BF=o.z_BF * scale) for o in (TRAINING.known, outliers)]
    again = replace(TRAINING, known=scaled[0], outliers=scaled[1]).fit(make("detectors", "outlier_probe"))
    torch.testing.assert_close(again.score(scaled[0]), probe.score(TRAINING.known), atol=1e-4, rtol=0)


def loss_of(detector: Any, l2: float) -> float:
    """What the energy probe minimises, by numpy."""

    def score(logits: Tensor) -> np.ndarray:
        energy = -logsumexp(logits.numpy() + detector.log_weight_C_.numpy(), axis=1)
        return detector.slope_.item() * energy + detector.offset_.item()

    fit = np.mean(np.logaddexp(0, score(KNOWN_LOGITS)))
    fit += np.mean(np.logaddexp(0, -score(OUTLIER_LOGITS)))
    penalty = (detector.log_weight_C_**2).sum().item() + np.log(detector.slope_.item()) ** 2
    return float(fit / 2 + l2 / 2 * penalty)


@pytest.mark.parametrize("l2", [0.001, 0.1])
def test_the_energy_probe_is_at_a_minimum(l2: float) -> None:
    """No small step in any direction makes the loss less."""
    probe = TRAINING.fit(make("detectors", "energy_probe", l2=l2))
    least, values = loss_of(probe, l2), state(probe)
    assert values["slope_"] > 0.1
    for name, value in values.items():
        for i in range(value.numel()):
            for step in (-0.05, 0.05):
                moved = value.clone()
                moved.view(-1)[i] += step
                other = restore(make("detectors", "energy_probe"), {**values, name: moved})
                assert loss_of(other, l2) > least, (name, i, step)


def test_the_energy_probe_with_a_heavy_penalty_ranks_as_the_energy() -> None:
    probe = TRAINING.fit(make("detectors", "energy_probe", l2=1e6))
    energy = make("detectors", "energy").score(TRAINING.known)
    torch.testing.assert_close(probe.score(TRAINING.known) - probe.offset_, energy, atol=1e-3, rtol=1e-4)


def test_an_outlier_that_only_class_weights_tell_is_told() -> None:
    """Outliers have one class's logit as high as known images have another's: their energies are equal."""
    logits = torch.zeros(200, 3).double()
    logits[:100, 0] = logits[100:, 2] = 5
    known, outliers = (Output(logits_BC=part, z_BF=part) for part in logits.split(100))
    training = Training(known, torch.zeros(100, dtype=torch.long), None, outliers)
    probe, energy = training.fit(make("detectors", "energy_probe")), make("detectors", "energy")
    assert torch.equal(energy.score(known), energy.score(outliers))
    assert probe.score(known).max() < probe.score(outliers).min()
