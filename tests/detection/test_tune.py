"""Options are chosen on validation images: where they help, never on noise, and in few passes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from oodream.core import registry
from oodream.core.types import Output
from oodream.data.images import Images, from_array
from oodream.detection.detectors import state
from oodream.detection.tune import candidates, tune
from oodream.functional.metrics import auroc
from oodream.models.inference import Extractor


class Means(nn.Module):
    """z is the mean colour of quarters of an image, and class c is told by quarter c; it counts images."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(4).repeat_interleave(3, dim=1) * 4)
            self.head.bias.zero_()
        self.seen = 0

    def forward(self, images_B3HW: Tensor) -> Output:
        self.seen += len(images_B3HW)
        z = (
            nn.functional.adaptive_avg_pool2d(images_B3HW.float() / 255, 2)
            .transpose(1, 2)
            .transpose(2, 3)
            .flatten(1)
        )
        return Output(logits_BC=self.head(z), z_BF=z)


def pictures(n: int, seed: int, *, known: bool, apart: float = 1.0) -> Images:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    quarters = 0.25 * torch.rand(n, 3, 4, generator=g)
    quarters[torch.arange(n), :, y] += 0.6
    if not known:
        quarters = (1 - apart) * quarters + apart * (0.55 * torch.rand(n, 3, 4, generator=g) + 0.2)
    pixels = (255 * quarters.clamp(0, 1)).view(n, 3, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return from_array("x", pixels.to(torch.uint8), y, list("abcd"))


FIT, KNOWN, UNKNOWN = (
    pictures(400, 0, known=True),
    pictures(200, 1, known=True),
    pictures(200, 2, known=False),
)


def test_candidates_that_want_of_images_what_they_have_learned_are_compared() -> None:
    detector, result = tune(
        Extractor(Means()), "perturbed_mahalanobis", {}, fit=FIT, known=KNOWN, unknown=[UNKNOWN]
    )
    assert result.candidates == 6
    extractor = Extractor(Means())
    known_N, unknown_M = (detector.score(extractor(images, detector.probes)) for images in (KNOWN, UNKNOWN))
    assert result.auroc == pytest.approx(auroc(known_N, unknown_M))


def test_candidates_are_the_default_and_the_grid_and_keep_what_is_given() -> None:
    assert candidates("msp", {}) == [{}]
    ks = registry.get("detectors", "knn").GRID["k"]
    assert candidates("knn", {}) == [{}, *({"k": k} for k in ks)]
    assert candidates("knn", {"k": 7}) == [{"k": 7}]
    assert {"variant": "p", "percentile": 0.8} in candidates("ash@p", {"variant": "p"})
    assert len(candidates("odin", {})) == 1 + 4 * 3


def test_candidates_that_cannot_be_made_are_passed_over() -> None:
    """AdaSCALE's low may not exceed its high; of 8 x 8 candidates 43 are left, and the default."""
    assert len(candidates("adascale", {})) == 1 + 8 * 8
    _, tried = tune(Extractor(Means()), "adascale", {}, fit=FIT, known=KNOWN, unknown=[UNKNOWN])
    assert tried.candidates == 1 + 43
    with pytest.raises(ValueError, match="low must be at most high"):
        tune(Extractor(Means()), "adascale", {"low": 0.9}, fit=FIT, known=KNOWN, unknown=[UNKNOWN])


def test_a_better_option_is_found_and_the_detector_comes_fitted() -> None:
    sets = {"fit": FIT, "known": KNOWN, "unknown": [UNKNOWN]}
    detector, tried = tune(Extractor(Means()), "ash", {"variant": "b"}, **sets)
    assert tried.auroc > tried.default + 0.01
    assert detector.variant == "b"
    assert detector.percentile == tried.options["percentile"]
    assert state(detector).keys() == {"weight_CF_", "bias_C_"}
    _, tried = tune(Extractor(Means()), "msp", {}, **sets)
    assert (tried.options, tried.candidates) == ({}, 1)


def test_noise_leaves_the_default() -> None:
    """Unknown images that are drawn as the known ones are: some candidate is always a little better, none
    truly.
    """
    for seed in range(5):
        unknown = pictures(200, 10 + seed, known=True)
        for name in ("ash", "knn", "scale"):
            _, tried = tune(Extractor(Means()), name, {}, fit=FIT, known=KNOWN, unknown=[unknown])
            assert tried.options == {}


def test_all_candidates_share_one_pass_of_each_set(tmp_path: Path) -> None:
    network, sets = Means(), {"fit": FIT, "known": KNOWN, "unknown": [UNKNOWN]}
    tune(Extractor(network), "ash", {}, **sets)
    assert network.seen == 800
    for name in ("knn", "scale", "energy"):
        tune(Extractor(network, cache=tmp_path), name, {}, **sets)
    assert network.seen == 800 + 800


def test_options_that_do_not_suit_a_network_are_passed_over() -> None:
    sets = {"fit": FIT, "known": KNOWN, "unknown": [UNKNOWN]}
    _, tried = tune(Extractor(Means()), "vim", {}, **sets)
    # Of widths 8 to 1000 only 8 leaves something of 12, and so does the default.
    assert tried.candidates == 2
    with pytest.raises(ValueError, match="dim lies between 1 and 11"):
        tune(Extractor(Means()), "vim", {"dim": 12}, **sets)
