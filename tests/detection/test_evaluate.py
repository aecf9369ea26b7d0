from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn

from oodream.core.results import row_from_json, row_to_json
from oodream.core.types import Output, Sizes
from oodream.data.images import Images, from_array
from oodream.detection.detectors.knn import KNN
from oodream.detection.evaluate import Evaluation, evaluate, evaluate_outputs
from oodream.functional.metrics import METRICS, measure
from oodream.training.losses.energy_logistic import EnergyLogistic

CLASSES, WIDTH = 3, 8


def outputs(n: int, strength: float, seed: int, classes: int = CLASSES) -> tuple[Output, Tensor]:
    y = torch.arange(n) % classes
    z = strength * torch.eye(classes, WIDTH)[y] + torch.randn(
        n, WIDTH, generator=torch.Generator().manual_seed(seed)
    )
    return Output(logits_BC=z[:, :classes], z_BF=z), y


FIT, TEST = outputs(300, 5, 0), outputs(150, 5, 1)
OOD = {
    "bags": ("near", outputs(80, 2.5, 2)[0]),
    "boots": ("near", outputs(60, 2, 3)[0]),
    "noise": ("far", outputs(90, 0, 4)[0]),
    "same": ("control", outputs(150, 5, 5)[0]),
}


def run(ood: dict[str, tuple[str, Output]] = OOD, seed: int = 7) -> Evaluation:
    return evaluate_outputs(FIT, TEST, ood, ["energy", "knn"], classifier="plain", seed=seed, resamples=60)


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return run()


def test_one_row_per_detector_and_set_then_the_means(result: Evaluation) -> None:
    sets = [("bags", "near"), ("boots", "near"), ("noise", "far"), ("same", "control")]
    means = [("mean", "near"), ("mean", "far"), ("mean", "all")]
    expected = [(detector, *pair) for detector in ("energy", "knn") for pair in sets + means]
    assert [(row.detector, row.dataset, row.group) for row in result.rows] == expected
    assert {(row.classifier, row.seed, row.n_id) for row in result.rows} == {("plain", 7, 150)}


def test_rows_are_the_metrics_of_the_scores(result: Evaluation) -> None:
    for row in result.rows:
        scores = result.scores[row.detector]
        if row.dataset != "mean":
            assert row.n_ood == len(scores[row.dataset])
            assert {m: getattr(row, m) for m in METRICS} == pytest.approx(
                measure(scores["id"], scores[row.dataset])
            )
    control = next(row for row in result.rows if row.dataset == "same")
    assert control.auroc == pytest.approx(0.5, abs=0.1)


def test_means_are_unweighted_and_leave_controls_out(result: Evaluation) -> None:
    by = {(row.dataset, row.group): row for row in result.rows if row.detector == "knn"}
    near, far = [by["bags", "near"], by["boots", "near"]], [by["noise", "far"]]
    for group, members in (("near", near), ("far", far), ("all", near + far)):
        mean = by["mean", group]
        assert {m: getattr(mean, m) for m in METRICS} == pytest.approx(
            {m: fmean(getattr(row, m) for row in members) for m in METRICS}
        )
        assert mean.n_ood == sum(row.n_ood for row in members)


def test_intervals_hold_the_value_and_a_mean_of_one_set_is_that_set(result: Evaluation) -> None:
    by = {(row.dataset, row.group): row for row in result.rows if row.detector == "energy"}
    for row in by.values():
        assert set(row.intervals) == {*METRICS, "accuracy"}
        for metric in ("auroc", "accuracy"):
            low, high = row.intervals[metric]
            assert low <= getattr(row, metric) <= high
    assert by["mean", "far"].intervals == by["noise", "far"].intervals


def test_wrongly_classified_images_are_told_by_the_same_scores() -> None:
    output, y = outputs(150, 1.0, 1)
    right = output.logits_BC.argmax(1) == y
    found = evaluate_outputs(FIT, (output, y), OOD, ["energy", "knn"], resamples=0)
    for row in found.rows:
        scores = found.scores[row.detector]["id"]
        assert row.misclassification_auroc == pytest.approx(measure(scores[right], scores[~right])["auroc"])
    sure = Output(logits_BC=20 * torch.eye(CLASSES)[y], z_BF=output.z_BF)
    assert (
        evaluate_outputs(FIT, (sure, y), OOD, ["energy"], resamples=0).rows[0].misclassification_auroc is None
    )


def test_accuracy_is_that_of_the_id_test_set(result: Evaluation) -> None:
    expected = (TEST[0].logits_BC.argmax(1) == TEST[1]).double().mean().item()
    assert [row.accuracy for row in result.rows] == pytest.approx([expected] * len(result.rows))


def test_same_seed_same_rows_and_a_set_does_not_depend_on_the_others(result: Evaluation) -> None:
    assert run().rows == result.rows
    alone = {row.dataset: row for row in run({"boots": OOD["boots"]}).rows}
    assert alone["boots"] in result.rows
    other = run(seed=8).rows[0]
    assert other.auroc == result.rows[0].auroc
    assert other.intervals["auroc"] != result.rows[0].intervals["auroc"]


def test_a_group_without_sets_has_no_mean() -> None:
    groups = [(row.dataset, row.group) for row in run({"noise": OOD["noise"]}).rows if row.detector == "knn"]
    assert groups == [("noise", "far"), ("mean", "far"), ("mean", "all")]
    assert [row.dataset for row in run({"same": OOD["same"]}).rows] == ["same", "same"]


def test_rows_survive_json(result: Evaluation) -> None:
    line = row_to_json(result.rows[0])
    assert "\n" not in line
    assert row_from_json(line) == result.rows[0]
    with pytest.raises(ValueError, match=r"another version \(autc\)"):
        row_from_json(line.replace('"autc"', '"x"').replace(f'"x": {result.rows[0].autc}, ', ""))


@pytest.mark.parametrize(
    ("name", "group", "output", "message"),
    [
        ("none", "far", outputs(0, 0, 0)[0], "'none' is empty"),
        (
            "wide",
            "far",
            outputs(5, 0, 0, classes=4)[0],
            "'wide' has outputs for 4 classes, the ID test set for 3",
        ),
        ("odd", "middle", outputs(5, 0, 0)[0], "must be near, far or control"),
        ("id", "far", outputs(5, 0, 0)[0], "reserved"),
        ("mean", "far", outputs(5, 0, 0)[0], "reserved"),
    ],
)
def test_unusable_sets_are_refused_by_name(name: str, group: str, output: Output, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run({name: (group, output)})


def test_an_empty_id_test_set_is_refused() -> None:
    with pytest.raises(ValueError, match="ID test set is empty"):
        evaluate_outputs(FIT, outputs(0, 0, 0), OOD, ["energy"], classifier="plain", seed=0)


# From images


class Tint(nn.Module):
    """Features are mean colours, classes their channels; it counts the images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.seen = nn.Linear(3, 3), 0
        with torch.no_grad():
            self.head.weight.copy_(20 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, images_B3HW: Tensor) -> Output:
        self.seen += len(images_B3HW)
        z = images_B3HW.float().mean((2, 3)) / 255
        return Output(logits_BC=self.head(z), z_BF=z)


def tinted(n: int, seed: int, known: bool = True) -> Images:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    pixels = torch.randint(0, 100, (n, 3, 4, 4), generator=g)
    pixels[torch.arange(n), y if known else (y + 1) % 3] += 100 if known else 20
    return from_array("tint", pixels.to(torch.uint8), y, ["red", "green", "blue"])


def test_a_network_runs_once_over_each_set_whatever_the_detectors(tmp_path: Path) -> None:
    network, names = Tint(), ["energy", "msp", "knn", "mahalanobis", "react", "vim", "she"]
    sets = {
        "dull": ("far", tinted(40, 2, known=False).as_ood()),
        "grey": ("near", tinted(50, 3, known=False).as_ood()),
    }
    given = {"fit": tinted(90, 0), "test": tinted(60, 1), "ood": sets, "resamples": 20}
    found = evaluate(network, names, **given, cache=tmp_path)
    assert network.seen == 90 + 60 + 40 + 50
    assert len(found.rows) == len(names) * 5
    assert next(row for row in found.rows if row.detector == "energy" and row.group == "all").auroc > 0.9
    again = evaluate(network, [*names, "scale"], **given, cache=tmp_path)
    assert network.seen == 240
    assert again.rows[: len(found.rows)] == found.rows


def test_detectors_may_be_given_as_they_are() -> None:
    given = {
        "fit": tinted(90, 0),
        "test": tinted(60, 1),
        "ood": {"dull": ("far", tinted(40, 2, known=False))},
        "resamples": 0,
    }
    found = evaluate(Tint(), {"one": KNN(k=1), "many": KNN(k=30)}, **given)
    assert {row.detector for row in found.rows} == {"one", "many"}
    assert (found.scores["one"]["dull"] < found.scores["many"]["dull"]).all()
    assert found.rows[0].intervals.keys() == {"auroc", "accuracy"}  # without resamples DeLong's


def test_class_weights_come_with_the_loss() -> None:
    loss = EnergyLogistic(weighted=True)
    loss.build(Sizes(features=3, classes=3))
    with torch.no_grad():
        loss.log_energy_C.copy_(torch.tensor([0.5, 0.0, -0.5]))
    given = {
        "fit": tinted(90, 0),
        "test": tinted(60, 1),
        "ood": {"dull": ("far", tinted(40, 2, known=False))},
        "resamples": 0,
    }
    found = evaluate(Tint(), ["weighted_energy", "energy"], **given, loss=loss)
    assert not torch.equal(found.scores["weighted_energy"]["id"], found.scores["energy"]["id"])
    with pytest.raises(ValueError, match="trained with class weights"):
        evaluate(Tint(), ["weighted_energy"], **given)


def test_labels_that_are_not_the_networks_are_refused() -> None:
    output, y = TEST
    with pytest.raises(
        ValueError,
        match=r"outputs for 3 classes and 150 ID test images, and there are 150 labels from 1 to 3",
    ):
        evaluate_outputs(FIT, (output, y + 1), OOD, ["energy"])
    with pytest.raises(ValueError, match="300 ID training images, and there are 7 labels"):
        evaluate_outputs((FIT[0], FIT[1][:7]), TEST, OOD, ["energy"])
