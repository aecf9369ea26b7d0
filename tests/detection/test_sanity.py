"""Detectors that rank known images below pseudo-OOD images made of them are found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oodream.core.registry import make
from oodream.core.types import Output
from oodream.data.images import Images, ImageSet, from_array
from oodream.detection.evaluate import evaluate
from oodream.detection.sanity import pseudo_ood, upside_down, warn_of_upside_down
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


def test_pseudo_ood_images_are_of_every_kind_and_always_the_same() -> None:
    images = lights(300, 0)
    nonsense = pseudo_ood(images)
    assert nonsense is not None
    assert len(nonsense) == 2 * 100
    assert (nonsense.labels == -1).all()
    shuffled, blended = nonsense.batch(range(200)).split(100)
    known = {image.numpy().tobytes() for image in images.batch(range(300))}
    sums = {int(image.sum()) for image in images.batch(range(300))}
    assert {int(image.sum()) for image in shuffled} <= sums, "the same pixels elsewhere"
    assert (blended.amax((1, 2, 3)) < images.batch(range(300)).max()).all(), "two lights, half as bright"
    assert not known & {image.numpy().tobytes() for image in (*shuffled, *blended)}
    again = pseudo_ood(images)
    assert again is not None
    assert torch.equal(again.batch(range(200)), nonsense.batch(range(200)))


@pytest.mark.parametrize(("each", "options"), [(12, {}), (12, {"k": 5}), (100, {"k": 50})])
def test_a_neighbour_within_the_class_is_right(each: int, options: dict[str, int]) -> None:
    assert measured(each, **options) == {}


def test_a_neighbour_beyond_the_class_is_upside_down() -> None:
    assert measured(12, k=50).keys() == {"knn"}
    assert measured(12, k=50)["knn"] < 0.1


def test_evaluate_warns_of_it_by_name() -> None:
    nonsense = pseudo_ood(lights(60, 2))
    assert nonsense is not None
    ood = [ImageSet(name="nonsense", group="far", images=nonsense)]
    detectors = {"knn": make("detectors", "knn"), "fiftieth": make("detectors", "knn", k=50)}
    with pytest.warns(
        UserWarning, match=r"^What ranks upside down: fiftieth \(AUROC \d\.\d% in other-s3\)"
    ) as warned:
        result = evaluate(
            Extractor(Corners()), detectors, fit=lights(48, 0), test=lights(60, 1), ood=ood, resamples=0,
            classifier="other", seed=3,
        )  # fmt: skip
    assert len(warned) == 1
    assert result.upside_down.keys() == {"fiftieth"}
    auroc = {row.detector: row.auroc for row in result.rows if row.dataset == "nonsense"}
    assert auroc["knn"] > 0.95
    assert auroc["fiftieth"] < 0.1


def test_all_of_a_run_are_one_warning() -> None:
    found = {"baseline-s0": {"knn": 0.12, "msp": 0.4}, "baseline-s1": {"knn": 0.2}, "regularized-s0": {}}
    with pytest.warns(UserWarning, match="upside down") as warned:
        warn_of_upside_down(found)
    (text,) = [str(w.message) for w in warned]
    assert (
        "down: knn (AUROC 12.0% in baseline-s0, 20.0% in baseline-s1); msp (AUROC 40.0% in baseline-s0)."
        in text
    )
    assert text.count("made unrecognizable") == 1


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


@pytest.mark.parametrize("known", [lights(1, 0), lights(40, 0).subset(torch.arange(0, 40, 4))])
def test_images_of_one_class_are_too_few_to_say(known: Images) -> None:
    extractor, detector = Extractor(Corners()), make("detectors", "energy")
    assert pseudo_ood(known) is None
    assert (
        upside_down(extractor, {"energy": detector}, known, {"energy": detector.score(extractor(known))})
        == {}
    )


def test_without_detectors_nothing_is_computed() -> None:
    assert upside_down(Extractor(nn.Identity()), {}, lights(8, 0), {}) == {}
