"""What every registered detector must do; a new one is tested here before its author writes a test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oodream.core import registry
from oodream.core.types import Head, Output
from oodream.data.images import Images, from_array
from oodream.detection.detectors import NotFitted, probes_of, restore, state
from oodream.models.inference import head_of, outputs

CLASSES, WIDTH, SIDE = 4, 24, 6
NAMES = registry.names("detectors")
FIXED = {"energy", "entropy", "gen", "gradnorm", "max_logit", "msp", "odin"}
NEED_HEAD = {
    "adascale", "ash", "dice", "fdbd", "nci", "rankfeat", "react", "residual", "scale", "vim", "vra", "weighted_energy", "weiper",
}  # fmt: skip
NEED_LABELS = {"gmm", "mahalanobis", "openmax", "relative_mahalanobis", "she"}
# Two outputs that are sure of one class beyond float64 are the same to these, by their definition.
SATURATE = {"gen", "kl_matching", "openmax", "weiper", "knn", "ssd"}
OPTIONS: dict[str, dict[str, Any]] = {
    "weiper": {"repeats": 10},
    "nci": {"alpha": 0.0},
    "dice": {"percentile": 0.5},
}


class Toy(nn.Module):
    """A network whose features are the mean of a feature map: pixels themselves, moved between channels."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(7)
        self.lift, self.relu = nn.Conv2d(3, WIDTH, 1, bias=False), nn.ReLU()
        self.head = nn.Linear(WIDTH, CLASSES)
        with torch.no_grad():
            self.lift.weight.copy_(torch.randn(self.lift.weight.shape, generator=g))
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=g))
            hues = 255 * torch.rand(64, 3, 1, 1, generator=g) / 2
            self.head.bias.copy_(-self(hues).logits_BC.mean(0) + self.head.bias)

    def forward(self, images_B3HW: Tensor) -> Output:
        z = self.relu(self.lift(images_B3HW.float() / 255)).mean((2, 3))
        return Output(logits_BC=self.head(z), z_BF=z)


def pictures(n: int, seed: int, low: int = 0, high: int = 256) -> tuple[Images, Tensor]:
    """Random images, labelled as the toy network sees them."""
    g = torch.Generator().manual_seed(seed)
    hue = torch.rand(n, 3, 1, 1, generator=g)
    pixels = (hue * torch.randint(low, high, (n, 3, SIDE, SIDE), generator=g)).to(torch.uint8)
    with torch.no_grad():
        y = Toy()(pixels).logits_BC.argmax(1)
    return from_array("toy", pixels, y, [str(c) for c in range(CLASSES)]), y


def head() -> Head:
    weight = torch.eye(CLASSES, WIDTH) + 0.02 * torch.randn(
        CLASSES, WIDTH, generator=torch.Generator().manual_seed(5)
    )
    return Head(
        weight_CF=weight,
        bias_C=torch.linspace(-0.1, 0.1, CLASSES),
        energy_C=torch.linspace(0.5, 1.5, CLASSES),
    )


def seen(z: Tensor) -> Output:
    """The outputs with features `z`; probes as if nothing had been done to an image."""
    logits = z @ head().weight_CF.T + head().bias_C
    return Output(
        logits_BC=logits, z_BF=z, probes={probe.key: logits if "odin" in probe.key else z for probe in VIEWS}
    )


VIEWS = probes_of([registry.make("detectors", name) for name in NAMES])


def known(n: int, seed: int) -> tuple[Output, Tensor]:
    """Rectified features: each class has an axis of its own, and all share noise."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    return seen((6 * torch.eye(CLASSES, WIDTH)[y] + 0.5 * torch.randn(n, WIDTH, generator=g)).clamp(min=0)), y


def unknown(n: int, seed: int) -> Output:
    """Small features on all axes, and a large one on an axis that no class uses: every logit is small."""
    g = torch.Generator().manual_seed(seed)
    return seen((0.2 * torch.randn(n, WIDTH, generator=g)).clamp(min=0) + 3 * torch.eye(WIDTH)[-1])


def part(output: Output, rows: slice) -> Output:
    probes = {key: probe[rows] for key, probe in output.probes.items()}
    return Output(logits_BC=output.logits_BC[rows], z_BF=output.z_BF[rows], probes=probes)


def scored_or_refused(name: str, fit: Output, y: Tensor, head: Head | None, test: Output) -> Any:
    """Scores, or the reason why there are none."""
    try:
        return make(name).fit(fit, y, head).score(test)
    except ValueError as error:
        return str(error)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def make(name: str) -> Any:
    return registry.make("detectors", name, **OPTIONS.get(name, {}))


def test_at_least_twenty_four_are_registered() -> None:
    assert len(NAMES) >= 24
    assert set(NAMES) >= FIXED | NEED_HEAD | NEED_LABELS


def test_fit_returns_self_and_far_away_scores_higher(name: str) -> None:
    detector = make(name)
    assert detector.fit(*known(400, 0), head()) is detector
    id_N, ood_M = detector.score(known(200, 1)[0]), detector.score(unknown(100, 2))
    assert id_N.shape == (200,)
    assert id_N.dtype == torch.float64
    assert torch.cat([id_N, ood_M]).isfinite().all()
    assert (ood_M[:, None] > id_N).double().mean() > 0.9


def test_scores_do_not_depend_on_the_batch_or_the_run(name: str) -> None:
    detector = make(name).fit(*known(400, 0), head())
    test = known(30, 1)[0]
    whole = detector.score(test)
    parts = [detector.score(part(test, slice(a, b))) for a, b in ((0, 1), (1, 12), (12, 30))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-12)
    again = make(name).fit(*known(400, 0), head())
    assert torch.equal(again.score(test), whole)


def test_what_was_learnt_can_be_stored(name: str) -> None:
    detector, test = make(name).fit(*known(400, 0), head()), known(30, 1)[0]
    learnt = state(detector)
    assert all(isinstance(tensor, Tensor) for tensor in learnt.values())
    assert torch.equal(restore(make(name), learnt).score(test), detector.score(test))
    with pytest.raises(ValueError, match="not what a"):
        restore(make(name), {**learnt, "alien": torch.zeros(1)})
    if name not in FIXED:
        with pytest.raises(NotFitted):
            state(make(name))


def test_very_confident_outputs_stay_finite_and_apart(name: str) -> None:
    detector = make(name).fit(*known(400, 0), head())
    z = torch.linspace(1, 3, 50)[:, None] * (40 * torch.eye(CLASSES, WIDTH)[:1] + torch.linspace(0, 1, WIDTH))
    scores = detector.score(seen(z))
    assert scores.isfinite().all()
    if name not in SATURATE:
        assert len(scores.unique()) == 50


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_are_refused_by_name(name: str, bad: float) -> None:
    detector = make(name).fit(*known(400, 0), head())
    broken = known(5, 1)[0]
    for tensor in (broken.logits_BC, broken.z_BF, *broken.probes.values()):
        tensor[2, 1] = bad
    with pytest.raises(ValueError, match=r"(logits|features|probes) contain NaN or infinity"):
        detector.score(broken)


def test_score_before_fit_and_fit_on_nan_are_refused(name: str) -> None:
    if name in FIXED:
        return
    detector = make(name)
    output, y = known(400, 0)
    with pytest.raises(NotFitted, match="fit"):
        detector.score(output)
    output.z_BF[0, 0] = output.logits_BC[0, 0] = torch.nan
    if name == "weighted_energy":  # it learns from the head alone
        return
    with pytest.raises(ValueError, match=r"(features|logits) contain NaN"):
        detector.fit(output, y, head())


@pytest.mark.parametrize("name", sorted(NEED_HEAD))
def test_a_network_without_a_head_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"needs (the network's last layer|a classifier trained with class weights)"
    ):
        make(name).fit(*known(400, 0), None)


@pytest.mark.parametrize("name", sorted(NEED_LABELS))
def test_a_class_without_samples_is_named(name: str) -> None:
    output, y = known(400, 0)
    rows = y != 2
    with pytest.raises(ValueError, match=r"of class 2\b"):
        make(name).fit(Output(logits_BC=output.logits_BC[rows], z_BF=output.z_BF[rows]), y[rows], head())


def test_constant_features_and_fewer_samples_than_dimensions_are_defined(name: str) -> None:
    """Either finite scores, or a ValueError that says what is wrong."""
    output, y = known(12, 0)  # 24 dimensions
    flat = seen(torch.ones(12, WIDTH))
    for fit in (output, flat):
        scores = scored_or_refused(name, fit, y, head(), output)
        assert len(scores) > 20 if isinstance(scores, str) else scores.isfinite().all()


def test_logits_without_features(name: str) -> None:
    """A network that shows logits alone serves the detectors that need nothing else; the others say what they miss."""
    whole, y = known(100, 0)
    bare = Output(logits_BC=whole.logits_BC, z_BF=torch.empty(100, 0))
    scores = scored_or_refused(name, bare, y, None, bare)
    if name in {"energy", "msp", "max_logit", "entropy", "gen", "temperature", "kl_matching", "openmax"}:
        assert torch.equal(scores, make(name).fit(whole, y, head()).score(whole))
    else:
        assert any(word in scores for word in ("features", "last layer", "class weights", "probe"))


def test_a_network_serves_every_detector_in_one_pass(name: str) -> None:
    model, (fit, y), (test, _) = Toy(), pictures(200, 0), pictures(20, 1)
    detector = make(name) if name != "gmm" else registry.make("detectors", "gmm", iterations=5)
    probes = probes_of([detector])
    known_, device = head_of(model), torch.device("cpu")
    if name == "weighted_energy":
        assert known_ is not None
        known_ = Head(weight_CF=known_.weight_CF, bias_C=known_.bias_C, energy_C=torch.ones(CLASSES))
    detector.fit(outputs(model, fit, device, probes=[probe for probe in probes if probe.for_fit]), y, known_)
    scores = [detector.score(outputs(model, test, device, batch=batch, probes=probes)) for batch in (20, 7)]
    assert scores[0].isfinite().all()
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)
