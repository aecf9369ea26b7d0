"""Detectors that rank known images below the same images with their pixels in disorder are found."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from oodream.core.registry import make
from oodream.core.types import Output
from oodream.data.images import Images, ImageSet, from_array
from oodream.detection.evaluate import evaluate
from oodream.detection.sanity import scrambled, upside_down
from oodream.models.inference import Extractor


class Corners(nn.Module):
    """Features are the colours of the four corners, and class c has its light in corner c."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(4).repeat_interleave(3, dim=1))
            self.head.bias.zero_()

    def forward(self, images_B3HW: Tensor) -> Output:
        z_BF = nn.functional.adaptive_avg_pool2d(images_B3HW.float() / 255, 2).flatten(2).mT.flatten(1)
        return Output(logits_BC=self.head(z_BF), z_BF=z_BF)


def lights(n: int, seed: int) -> Images:
    """A bright corner, the class's, in the dark."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    pixels = torch.randint(0, 60, (n, 3, 8, 8), generator=g)
    for corner in range(4):
        rows, columns = (
            slice(4 * (corner // 2), 4 * (corner // 2) + 4),
            slice(4 * (corner % 2), 4 * (corner % 2) + 4),
        )
        pixels[y == corner, :, rows, columns] += 150
    return from_array("lights", pixels.to(torch.uint8), y, list("abcd"))


def measured(each: int, **options: int) -> dict[str, float]:
    """The AUROCs of `knn` so made, after `each` training images a class, that the check objects to."""
    extractor, fit, test = Extractor(Corners()), lights(4 * each, 0), lights(120, 1)
    detector = make("detectors", "knn", **options).fit(extractor(fit), fit.labels)
    return upside_down(extractor, {"knn": detector}, test, {"knn": detector.score(extractor(test))})


def test_scrambled_images_hold_the_same_pixels_elsewhere() -> None:
    images = lights(300, 0)
    nonsense = scrambled(images)
    assert len(nonsense) == 200
    assert (nonsense.labels == -1).all()
    rows = {tuple(image.flatten(1).sort(1).values.flatten().tolist()) for image in images.batch(range(300))}
    pixels = nonsense.batch(range(200))
    assert all(tuple(image.flatten(1).sort(1).values.flatten().tolist()) in rows for image in pixels)
    hues = {tuple(pixel.tolist()) for image in images.batch(range(300)) for pixel in image.flatten(1).T}
    assert {tuple(pixel.tolist()) for image in pixels for pixel in image.flatten(1).T} <= hues, (
        "whole pixels move"
    )
    assert torch.equal(pixels, scrambled(images).batch(range(200)))


@pytest.mark.parametrize(("each", "options"), [(12, {}), (12, {"k": 5}), (100, {"k": 50})])
def test_a_neighbour_within_the_class_is_right(each: int, options: dict[str, int]) -> None:
    assert measured(each, **options) == {}


def test_a_neighbour_beyond_the_class_is_upside_down() -> None:
    assert measured(12, k=50).keys() == {"knn"}
    assert measured(12, k=50)["knn"] < 0.1


def test_evaluate_warns_of_it_by_name() -> None:
    ood = [ImageSet(name="nonsense", group="far", images=scrambled(lights(60, 2)))]
    detectors = {"knn": make("detectors", "knn"), "fiftieth": make("detectors", "knn", k=50)}
    with pytest.warns(UserWarning, match=r"^fiftieth ranks upside down: .* \(AUROC \d\.\d%\)") as warned:
        result = evaluate(
            Extractor(Corners()), detectors, fit=lights(48, 0), test=lights(60, 1), ood=ood, resamples=0
        )
    assert [str(w.message).split()[0] for w in warned] == ["fiftieth"]
    auroc = {row.detector: row.auroc for row in result.rows if row.dataset == "nonsense"}
    assert auroc["knn"] > 0.95
    assert auroc["fiftieth"] < 0.1


def test_what_chance_explains_does_not_count() -> None:
    """A score that says nothing lies below one half as often as above."""

    class Guess:
        def score(self, output: Output) -> Tensor:
            return torch.rand(
                len(output), generator=torch.Generator().manual_seed(len(output)), dtype=torch.float64
            )

    scores = {str(i): torch.rand(120, generator=torch.Generator().manual_seed(i)) for i in range(40)}
    guesses = dict.fromkeys(scores, Guess())
    found = upside_down(Extractor(Corners()), guesses, lights(120, 1), scores)  # type: ignore[arg-type]
    assert len(found) <= 4  # one side of a 95 % interval: 1 of 40


def test_one_image_is_too_few_to_say() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upside_down(Extractor(Corners()), {}, lights(8, 0), {}) == {}
        extractor, one = Extractor(Corners()), lights(1, 0)
        detector = make("detectors", "energy")
        assert (
            upside_down(extractor, {"energy": detector}, one, {"energy": detector.score(extractor(one))})
            == {}
        )
