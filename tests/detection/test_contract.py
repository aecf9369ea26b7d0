"""What every registered detector must do; a new one is tested here before its author writes a test."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oodream.core import registry
from oodream.core.types import Head, Output
from oodream.detection.detectors import NoOutliers, learned_fields, restore, state
from oodream.detection.fit import Training, uses_outliers
from oodream.testing.detector import check_detector
from oodream.testing.toy import CLASSES, WIDTH, head, known, output, unknown

NAMES = registry.names("detectors")
FIXED = {"energy", "entropy", "gen", "gradnorm", "max_logit", "msp", "odin"}
LOGITS_ALONE = {
    "energy", "energy_gen", "energy_probe", "entropy", "gen", "kl_matching", "max_logit", "msp", "openmax",
    "temperature", "weighted_energy",
}  # fmt: skip
NEED_HEAD = {
    "adascale", "ash", "dice", "fdbd", "nac", "nci", "rankfeat", "react", "residual", "scale", "vim", "vra",
    "weighted_energy", "weiper",
}  # fmt: skip
NEED_LABELS = {
    "gmm", "mahalanobis", "normalized_mahalanobis", "normalized_relative_mahalanobis", "openmax",
    "perturbed_mahalanobis", "relative_mahalanobis", "she", "temperature",
}  # fmt: skip
USE_OUTLIERS = {"energy_probe", "outlier_probe"}
NEED_EVERY_CLASS = NEED_LABELS - {"temperature"}
# Two outputs that are sure of one class beyond float64 are the same to these, by their definition.
SATURATE = {"gen", "kl_matching", "nac", "openmax", "weiper", "knn", "ssd"}
# What these detectors say of features that never vary; the others score them.
REFUSE_CONSTANT_FEATURES = {
    "energy_gen": "needs training images whose energy and entropy differ",
    "gmm": "GMM: no mixture fits these features, which may vary too little",
    "mahalanobis": "need features that vary within classes",
    "normalized_mahalanobis": "need features that vary within classes",
    "normalized_relative_mahalanobis": "need features that vary within classes",
    "openmax": "OpenMax has fewer than 2 rightly classified training samples of class 0, 1, 3",
    "perturbed_mahalanobis": "need features that vary within classes",
    "relative_mahalanobis": "need features that vary within classes",
    "she": "SHE has no rightly classified training sample of class 0, 1, 3",
    "ssd": "need features that vary within classes",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "weiper": {"repeats": 10},
    "nac": {"alpha": 100.0},
    "nci": {"alpha": 0.0},
    "dice": {"percentile": 0.5},
    "gmm": {"iterations": 20},
}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def make(name: str) -> Any:
    return registry.make("detectors", name, **OPTIONS.get(name, {}))


def fitted_to(
    name: str, fit: Output, y: Tensor, last: Head | None = None, outliers: Output | None = None
) -> Any:
    """The detector, fitted; one that uses outliers also to those, by default far-away ones."""
    detector = make(name)
    return Training(fit, y, last, unknown(100, 3, [detector]) if outliers is None else outliers).fit(detector)


def fitted(name: str) -> Any:
    return fitted_to(name, *known(400, 0, [make(name)]), head())


def scored(detector: Any, whole: Output) -> torch.Tensor:
    """The scores of outputs, with the probes that the fitted detector wants beside those that are there."""
    probes = known(len(whole), 0, [detector])[0].probes
    return detector.score(replace(whole, probes={**probes, **whole.probes}))


def scores_or_reason(
    name: str, fit: Output, y: Tensor, last: Head | None, outliers: Output | None = None
) -> Any:
    try:
        return scored(fitted_to(name, fit, y, last, outliers), fit)
    except ValueError as error:
        return str(error)


def test_all_are_registered() -> None:
    assert len(NAMES) >= 36
    assert set(NAMES) >= FIXED | NEED_HEAD | NEED_LABELS | LOGITS_ALONE | USE_OUTLIERS


def test_the_rules_are_kept(name: str) -> None:
    check_detector(name, **OPTIONS.get(name, {}))


def test_only_those_that_learn_have_learned_fields(name: str) -> None:
    assert bool(learned_fields(make(name))) == (name not in FIXED)


def test_another_detectors_state_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"not what a {type(make(name)).__name__} has learned: alien"):
        restore(make(name), {**state(fitted(name)), "alien": torch.zeros(1)})


def test_very_confident_outputs_stay_finite_and_apart(name: str) -> None:
    detector = fitted(name)
    sure = 40 * torch.eye(CLASSES, WIDTH)[:1] + torch.linspace(0, 1, WIDTH)
    scores = detector.score(output(torch.linspace(1, 3, 50)[:, None] * sure, [detector]))
    assert scores.isfinite().all()
    if name not in SATURATE:
        assert len(scores.unique()) == 50


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_holds_nan_or_infinity_is_named(name: str, bad: float) -> None:
    detector = fitted(name)
    for part in ("logits", "features", "probes"):
        broken = known(5, 1, [detector])[0]
        parts = {"logits": [broken.logits_BC], "features": [broken.z_BF], "probes": [*broken.probes.values()]}
        for tensor in parts[part]:
            tensor[2, 1] = bad
        if part in detector.reads or (part == "probes" and broken.probes):
            with pytest.raises(ValueError, match=f"The {part} contain NaN or infinity"):
                detector.score(broken)
        else:
            assert detector.score(broken).isfinite().all(), f"{part} are not read"


@pytest.mark.parametrize("name", sorted(NEED_HEAD))
def test_a_network_without_a_head_is_refused(name: str) -> None:
    needs = (
        "a classifier trained with class weights" if name == "weighted_energy" else "the network's last layer"
    )
    with pytest.raises(ValueError, match=f"{type(make(name)).__name__} needs {needs}"):
        make(name).fit(*known(400, 0, [make(name)]), None)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NEED_HEAD))
def test_the_others_do_without_a_head(name: str) -> None:
    detector = make(name)
    fit, y = known(400, 0, [detector])
    without, with_head = fitted_to(name, fit, y), fitted_to(name, fit, y, head())
    assert torch.equal(scored(without, fit), scored(with_head, fit))


@pytest.mark.parametrize("name", sorted(NEED_EVERY_CLASS))
def test_a_class_without_samples_is_named(name: str) -> None:
    fit, y = known(400, 0)
    rows = y != 2
    with pytest.raises(ValueError, match=r"of class 2\."):
        make(name).fit(Output(logits_BC=fit.logits_BC[rows], z_BF=fit.z_BF[rows]), y[rows], head())


@pytest.mark.parametrize("name", sorted(NEED_LABELS))
def test_labels_that_are_no_classes_are_refused(name: str) -> None:
    fit, y = known(400, 0)
    with pytest.raises(ValueError, match=r"Labels lie between 0 and 3, .* labels from 1 to 4"):
        make(name).fit(fit, y + 1, head())


def test_those_that_learn_from_outliers_say_so(name: str) -> None:
    """The others never see one: `fit` of known images alone is all they need."""
    assert uses_outliers(make(name)) == (name in USE_OUTLIERS)
    fit, y = known(400, 0, [make(name)])
    if name in USE_OUTLIERS:
        with pytest.raises(NoOutliers, match=f"{type(make(name)).__name__} learns from outliers, and there"):
            make(name).fit(fit, y, head())
        with pytest.raises(ValueError, match="has no training sample"):
            make(name).fit(fit, torch.full_like(y, -1), head())
    else:
        alone = make(name).fit(fit, y, head())
        assert torch.equal(scored(alone, fit), scored(fitted(name), fit))


def test_features_that_never_vary_are_scored_or_named(name: str) -> None:
    flat = output(torch.ones(12, WIDTH), [make(name)])
    scores = scores_or_reason(name, flat, known(12, 0)[1], head(), flat)
    if name in REFUSE_CONSTANT_FEATURES:
        assert REFUSE_CONSTANT_FEATURES[name] in scores
    else:
        assert scores.isfinite().all()


def test_fewer_samples_than_dimensions_are_scored(name: str) -> None:
    few, y = known(12, 0, [make(name)])  # 24 dimensions
    assert scores_or_reason(name, few, y, head()).isfinite().all()


def test_no_samples_at_all_are_refused(name: str) -> None:
    none = output(torch.zeros(0, WIDTH), [make(name)])
    reason = scores_or_reason(name, none, torch.zeros(0, dtype=torch.int64), head())
    assert (
        len(reason) == 0
        if name in FIXED
        else reason == f"{type(make(name)).__name__} has no training sample."
    )


def test_logits_without_features(name: str) -> None:
    """A network that shows logits alone serves detectors that need nothing else; the others say what they
    need.
    """
    whole, y = known(100, 0, [make(name)])
    bare = replace(whole, z_BF=torch.empty(100, 0), probes={})
    scores = scores_or_reason(name, bare, y, head(), bare)
    if name in LOGITS_ALONE:
        assert torch.equal(scores, fitted_to(name, whole, y, head(), whole).score(whole))
    elif name == "odin":
        with pytest.raises(ValueError, match=r"ODIN needs the probe 'odin T=1000 epsilon=0\.0014'"):
            make(name).score(bare)
    else:
        assert f"{type(make(name)).__name__} needs features" in scores


@pytest.mark.parametrize("name", ["adascale", "combood", "odin", "perturbed_mahalanobis", "rankfeat"])
def test_outputs_without_the_probes_are_refused(name: str) -> None:
    detector = fitted(name)
    with pytest.raises(ValueError, match=r"needs the probe .* give the detector's probes to the Extractor"):
        detector.score(known(5, 0)[0])


OUT_OF_RANGE = [
    ("adascale", {"low": 0.9, "high": 0.8}, "low must be at most high; they are 0.9 and 0.8"),
    ("adascale", {"k1": 0.0}, "k1 must be between 0 and 1, and above 0, not 0.0"),
    ("adascale", {"pixels": 1.5}, "pixels must be between 0 and 1"),
    ("adascale", {"weight": -1.0}, "weight must be at least 0"),
    ("ash", {"percentile": 1.0}, "percentile must be between 0 and 1, without the ends, not 1.0"),
    ("ash", {"variant": "x"}, "variant must be one of s, p, b, not 'x'"),
    ("combood", {"k": -1}, "k must be at least 0"),
    ("dice", {"percentile": 0.0}, "percentile must be between 0 and 1"),
    ("energy_gen", {"gamma": -0.1}, "gamma must be above 0"),
    ("energy_probe", {"l2": 0.0}, "l2 must be above 0"),
    ("gen", {"gamma": 0.0}, "gamma must be above 0"),
    ("gen", {"m": 0}, "m must be at least 1, not 0"),
    ("gmm", {"iterations": 0}, "iterations must be at least 1"),
    ("knn", {"k": -1}, "k must be at least 0"),
    ("nac", {"alpha": 0.0}, "alpha must be above 0"),
    ("nac", {"full": 1.5}, "full must be between 0 and 1, and above 0"),
    ("nac", {"intervals": 0}, "intervals must be at least 1"),
    ("nci", {"alpha": -0.1}, "alpha must be at least 0"),
    ("nnguide", {"k": 0}, "k must be at least 1"),
    ("nnguide", {"share": 0.0}, "share must be between 0 and 1, and above 0"),
    ("odin", {"temperature": 0.0}, "temperature must be above 0"),
    ("odin", {"epsilon": -0.1}, "epsilon must be at least 0"),
    ("odin", {"epsilon": float("nan")}, "epsilon must be at least 0, not nan"),
    ("outlier_probe", {"l2": -1.0}, "l2 must be above 0"),
    ("perturbed_mahalanobis", {"epsilon": -0.1}, "epsilon must be at least 0"),
    ("openmax", {"tail": 1}, "tail must be at least 2"),
    ("openmax", {"alpha": 0}, "alpha must be at least 1"),
    ("react", {"percentile": 1.2}, "percentile must be between 0 and 1"),
    ("residual", {"dim": -3}, "dim must be at least 0"),
    ("scale", {"percentile": -0.2}, "percentile must be between 0 and 1"),
    ("ssd", {"clusters": 0}, "clusters must be at least 1"),
    ("vim", {"dim": -1}, "dim must be at least 0"),
    ("vra", {"low": 0.9, "high": 0.9}, "low must be below high; they are 0.9 and 0.9"),
    ("vra", {"high": 1.0}, "high must be between 0 and 1"),
    ("weiper", {"repeats": 0}, "repeats must be at least 1"),
    ("weiper", {"bins": 1}, "bins must be at least 2"),
    ("weiper", {"smooth": 0}, "smooth must be at least 1"),
    ("weiper", {"delta": -1.0}, "delta must be at least 0"),
]


@pytest.mark.parametrize(("name", "options", "message"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_refused_when_a_detector_is_made(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"detector '{name}': {message}")):
        registry.make("detectors", name, **options)


def test_every_detector_with_options_has_a_range_tested() -> None:
    with_options = {name for name in NAMES if any(f.init for f in fields(make(name)))}
    assert with_options == {name for name, _, _ in OUT_OF_RANGE}


@pytest.mark.parametrize(("each", "k"), [(3, 1), (8, 2), (20, 5), (100, 25), (200, 50), (1000, 50)])
def test_knns_neighbour_is_within_the_smallest_class(each: int, k: int) -> None:
    """The default is a quarter of the smallest class, and the usual 50 from 200 images a class on."""
    fit, y = known(4 * max(each, 50), 0)
    rows = (y != 2) | (torch.arange(len(y)) < 4 * each)
    fit, y = Output(logits_BC=fit.logits_BC[rows], z_BF=fit.z_BF[rows]), y[rows]
    assert int(y.bincount().min()) == each
    default, fixed = (registry.make("detectors", "knn", k=option).fit(fit, y) for option in (0, k))
    assert torch.equal(default.score(known(50, 1)[0]), fixed.score(known(50, 1)[0]))
