from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from oodream.core.registry import make
from oodream.core.results import row_from_json, row_to_json
from oodream.core.types import Head, Output, Sizes
from oodream.data.images import ImageSet, from_array
from oodream.detection.detectors import BaseDetector, learned
from oodream.detection.detectors.knn import KNN
from oodream.detection.evaluate import Evaluation, evaluate, evaluate_outputs, shift_row
from oodream.functional.metrics import METRICS, augrc, aurc, measure
from oodream.models.inference import Extractor
from oodream.training.losses.energy_logistic import EnergyLogistic
from tests.helpers.tint import Tint, tinted

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
    return evaluate_outputs(FIT, TEST, ood, ["energy", "knn"], classifier="baseline", seed=seed, resamples=60)


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return run()


def test_one_row_per_detector_and_set_then_the_means(result: Evaluation) -> None:
    sets = [("bags", "near"), ("boots", "near"), ("noise", "far"), ("same", "control")]
    means = [("mean", "near"), ("mean", "far"), ("mean", "all")]
    expected = [(detector, *pair) for detector in ("energy", "knn") for pair in sets + means]
    assert [(row.detector, row.dataset, row.group) for row in result.rows] == expected
    assert {(row.classifier, row.seed, row.n_id) for row in result.rows} == {("baseline", 7, 150)}


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
    result = evaluate_outputs(FIT, (output, y), OOD, ["energy", "knn"], resamples=0)
    for row in result.rows:
        scores = result.scores[row.detector]["id"]
        assert row.misclassification_auroc == pytest.approx(measure(scores[right], scores[~right])["auroc"])
        assert (row.aurc, row.augrc) == (aurc(scores, right), augrc(scores, right))
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
    earlier = {key: value for key, value in json.loads(line).items() if key not in ("aurc", "augrc")}
    assert row_from_json(json.dumps(earlier)) == replace(result.rows[0], aurc=None, augrc=None)
    with pytest.raises(ValueError, match=r"another version \(alien\)"):
        row_from_json(json.dumps({**earlier, "alien": 1}))
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
        evaluate_outputs(FIT, outputs(0, 0, 0), OOD, ["energy"], classifier="baseline", seed=0)


# From images


def dull(n: int = 40, group: str = "far", name: str = "dull") -> ImageSet:
    return ImageSet(name=name, group=group, images=tinted(n, 2, gain=20, off=1).as_ood(name))


GIVEN = {"fit": tinted(90, 0), "test": tinted(60, 1)}


def test_a_network_runs_once_over_each_set_whatever_the_detectors(tmp_path: Path) -> None:
    network, names = Tint(), ["energy", "msp", "knn", "mahalanobis", "react", "vim", "she"]
    sets = [dull(), dull(50, "near", "gray")]
    result = evaluate(Extractor(network, cache=tmp_path), names, **GIVEN, ood=sets, resamples=20)
    assert network.seen == 90 + 60 + 40 + 50 + 2 * 60, "the last for the check of sanity"
    assert len(result.rows) == len(names) * 5
    assert result.skipped == {}
    assert next(row for row in result.rows if row.detector == "energy" and row.group == "all").auroc > 0.9
    again = evaluate(Extractor(network, cache=tmp_path), [*names, "scale"], **GIVEN, ood=sets, resamples=20)
    assert network.seen == 360
    assert again.rows[: len(result.rows)] == result.rows


def test_detectors_may_come_ready_made() -> None:
    detectors = {"one": KNN(k=1), "many": KNN(k=30)}
    result = evaluate(Extractor(Tint()), detectors, **GIVEN, ood=[dull()], resamples=0)
    assert {row.detector for row in result.rows} == {"one", "many"}
    assert (result.scores["one"]["dull"] < result.scores["many"]["dull"]).all()
    assert result.rows[0].intervals.keys() == {"auroc", "accuracy"}  # without resamples DeLong's


def test_what_a_detector_wants_of_images_may_be_known_once_it_is_fitted(tmp_path: Path) -> None:
    still = {
        "still": make("detectors", "perturbed_mahalanobis", epsilon=0.0),
        "plain": make("detectors", "mahalanobis"),
    }
    moved = {"moved": make("detectors", "perturbed_mahalanobis", epsilon=0.002)}
    for cache in (None, tmp_path, tmp_path):
        result = evaluate(Extractor(Tint(), cache=cache), still | moved, **GIVEN, ood=[dull()], resamples=0)
        assert result.skipped == {}
        for name in ("id", "dull"):
            still_N, plain_N, moved_N = (result.scores[key][name] for key in ("still", "plain", "moved"))
            torch.testing.assert_close(still_N, plain_N)
            assert (moved_N < plain_N).double().mean() > 0.8


def test_a_detector_is_skipped_whose_wants_the_network_cannot_serve_once_it_is_fitted() -> None:
    class Closed(Tint):
        @torch.no_grad()
        def forward(self, images_B3HW: Tensor) -> Output:
            return super().forward(images_B3HW)

    names = ["energy", "perturbed_mahalanobis"]
    result = evaluate(Extractor(Closed()), names, **GIVEN, ood=[dull()], resamples=0)
    assert result.scores.keys() == {"energy"}
    assert "does not require grad" in result.skipped["perturbed_mahalanobis"]


def test_class_weights_come_with_the_loss() -> None:
    loss = EnergyLogistic(weighted=True)
    loss.build(Sizes(features=3, classes=3))
    with torch.no_grad():
        loss.log_energy_C.copy_(torch.tensor([0.5, 0.0, -0.5]))
    names = ["weighted_energy", "energy"]
    result = evaluate(Extractor(Tint(), loss=loss), names, **GIVEN, ood=[dull()], resamples=0)
    assert not torch.equal(result.scores["weighted_energy"]["id"], result.scores["energy"]["id"])
    without = evaluate(Extractor(Tint()), names, **GIVEN, ood=[dull()], resamples=0)
    assert without.scores.keys() == {"energy"}
    assert "trained with class weights" in without.skipped["weighted_energy"]


def test_detectors_that_cannot_be_used_are_skipped_and_named() -> None:
    """One needs a feature map that the network does not have, one cannot be fitted, one's scores are not
    finite.
    """

    @dataclass
    class Endless(BaseDetector):
        def _score(self, output: Output) -> Tensor:
            return output.logits_BC[:, 0] / 0

    detectors = {
        "rankfeat": make("detectors", "rankfeat"),
        "ssd": make("detectors", "ssd", clusters=60),
        "endless": Endless(),
        "energy": make("detectors", "energy"),
    }
    result = evaluate(Extractor(Tint()), detectors, **GIVEN, ood=[dull()], resamples=0)
    assert {row.detector for row in result.rows} == result.scores.keys() == {"energy"}
    assert list(result.skipped) == ["rankfeat", "ssd", "endless"]
    assert "no average of a feature map" in result.skipped["rankfeat"]
    assert "two samples for each of its 60 clusters; there are 90" in result.skipped["ssd"]
    assert "Infinite scores" in result.skipped["endless"]
    alone = evaluate(Extractor(Tint()), ["energy"], **GIVEN, ood=[dull()], resamples=0)
    assert alone.rows == result.rows


@dataclass
class Faulty(BaseDetector):
    """Fails in `_score`, or in `_fit`, as `fault` says."""

    fault: str = ""
    mean_: Tensor = learned()

    def _fit(self, output: Output, y_N: Tensor, head: Head) -> None:
        self.mean_ = output.logits_BC.mean()
        if self.fault == "fit":
            _ = 1 / 0

    def _score(self, output: Output) -> Tensor:
        given = {
            "short": lambda s: s[:-1],
            "list": lambda s: s.tolist(),
            "column": lambda s: s[:, None],
            "gradient": lambda s: s.requires_grad_(),
            "key": lambda s: {}["gone"],
            "attribute": lambda s: s.nowhere,
            "silent": lambda s: self.refuse(),
            "company": lambda s: s - s.mean(),
        }
        return given.get(self.fault, lambda s: s)(-output.logits_BC.logsumexp(1))

    def refuse(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("short", r"^Faulty: It gave 59 scores for 60 images\.$"),
        ("list", r"^Faulty: It gave no tensor of scores, but \["),
        ("column", r"^Faulty: Scores have the shape \(N,\); it gave \(60, 1\)\.$"),
        ("gradient", "^Faulty: Its scores require gradients"),
        ("key", r"^Faulty: KeyError: 'gone' \(.*test_evaluate\.py, line \d+\)\.$"),
        ("attribute", r"^Faulty: AttributeError: .*nowhere.* \(.*test_evaluate\.py, line \d+\)\.$"),
        ("silent", r"^Faulty: AssertionError \(.*test_evaluate\.py, line \d+\)\.$"),
        ("company", r"^Faulty scores an image by those beside it: the first of 60 has .* and 0 by itself\."),
        ("fit", r"^Faulty: ZeroDivisionError: division by zero \(.*test_evaluate\.py, line \d+\)\.$"),
    ],
)
def test_whatever_a_detector_raises_or_gives_costs_no_other_ones_results(fault: str, reason: str) -> None:
    detectors = {"bad": Faulty(fault=fault), "energy": make("detectors", "energy")}
    result = evaluate(Extractor(Tint()), detectors, **GIVEN, ood=[dull()], resamples=0)
    assert list(result.skipped) == ["bad"]
    assert re.search(reason, result.skipped["bad"])
    alone = evaluate(Extractor(Tint()), ["energy"], **GIVEN, ood=[dull()], resamples=0)
    assert alone.rows == result.rows


def test_a_detector_that_fails_on_the_unrecognizable_images_alone_is_warned_of() -> None:
    @dataclass
    class Partial(BaseDetector):
        def _score(self, output: Output) -> Tensor:
            return dict.fromkeys((60, 40, 1), output.logits_BC[:, 0])[len(output)]

    detectors = {"partial": Partial(), "energy": make("detectors", "energy")}
    with pytest.warns(UserWarning, match=r"partial cannot score known images made unrecognizable.*KeyError"):
        result = evaluate(Extractor(Tint()), detectors, **GIVEN, ood=[dull()], resamples=0)
    assert result.scores.keys() == {"partial", "energy"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError("no memory")])
def test_what_is_no_fault_of_a_detector_is_raised(error: BaseException) -> None:
    @dataclass
    class Interrupted(BaseDetector):
        def _score(self, output: Output) -> Tensor:
            raise error

    with pytest.raises(type(error)):
        evaluate(Extractor(Tint()), {"x": Interrupted()}, **GIVEN, ood=[dull()], resamples=0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            ("logits", "feature"),
            r"Typo\.reads: 'feature' is unknown; there are logits, features, labels, head,",
        ),
        ("features", r"Typo\.reads is a tuple of names, not 'features'"),
    ],
)
def test_a_detector_that_reads_what_there_is_not_is_refused_when_it_is_made(
    wrong: object, sentence: str
) -> None:
    @dataclass
    class Typo(BaseDetector):
        reads: ClassVar = wrong

        def _score(self, output: Output) -> Tensor:
            return output.z_BF.sum(1)

    with pytest.raises(ValueError, match=sentence):
        Typo()


@pytest.mark.parametrize(
    ("names", "reasons"),
    [
        (["weighted_energy", "rankfeat"], ["weighted_energy: .*class weights"]),
        (["rankfeat"], ["rankfeat: .*no average of a feature map"]),
        ([], ["At least one detector is needed"]),
    ],
)
def test_when_no_detector_is_left_all_reasons_are_given(names: list[str], reasons: list[str]) -> None:
    for reason in reasons:
        with pytest.raises(ValueError, match=reason):
            evaluate(Extractor(Tint()), names, **GIVEN, ood=[dull()], resamples=0)


def test_two_sets_of_one_name_are_refused_before_any_image_is_seen() -> None:
    network = Tint()
    with pytest.raises(ValueError, match="Two OOD sets are called 'dull'"):
        evaluate(Extractor(network), ["energy"], **GIVEN, ood=[dull(), dull(5, "near")])
    unlabelled = replace(dull(), name="dusk", group="shift")
    with pytest.raises(ValueError, match="The shifted set 'dusk' has images without a label"):
        evaluate(Extractor(network), ["energy"], **GIVEN, ood=[dull()], shifted=[unlabelled])
    assert network.seen == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"detectors": "energy"}, r"write \['energy'\] in place of 'energy'"),
        (
            {"ood": [dull().images]},
            r"holds Images in place .* ImageSet\(name='dull', group='near', images=…\)",
        ),
        ({"ood": dull()}, r"`ood` is a list of ImageSet: write ood=\[…\]"),
        ({"shifted": [tinted(5, 1)]}, "`shifted` holds Images in place of an ImageSet.*group='shift'"),
        ({"ood": [dull(group="train")]}, "'dull' has group 'train'; it must be near, far or control"),
        ({"resamples": -1}, "`resamples` is -1; it is 1 or more, or 0"),
        (
            {"fit": replace(tinted(90, 0), labels=torch.arange(90) % 4)},
            r"3 classes .* labels from 0 to 3.* unknown=\(NAME, …\)",
        ),
    ],
)
def test_wrong_arguments_are_refused_before_any_image_is_seen(wrong: dict[str, Any], message: str) -> None:
    network = Tint()
    given = {"detectors": ["energy"], **GIVEN, "ood": [dull()], **wrong}
    with pytest.raises(ValueError, match=message):
        evaluate(Extractor(network), **given)
    assert network.seen == 0


def test_shift_rows_are_counted_by_hand() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 2.0], [5.0, 0.0], [0.1, 0.0]])
    output, y = Output(logits_BC=logits, z_BF=logits), torch.tensor([0, 1, 1, 0])
    row = shift_row(output, y, -2.2, classifier="baseline", seed=3, dataset="fog", severity=4)
    assert (row.classifier, row.seed, row.dataset, row.severity, row.n) == ("baseline", 3, "fog", 4, 4)
    assert (row.accuracy, row.flagged) == (0.75, 0.5)  # energies -9.0, -2.1, -5.0 and -0.7
    assert row.interval[0] < 0.75 < row.interval[1]
    with pytest.raises(ValueError, match="'fog' is empty"):
        shift_row(outputs(0, 0, 0)[0], y[:0], 0.0, classifier="baseline", seed=0, dataset="fog")


def test_labels_that_are_not_the_networks_are_refused() -> None:
    output, y = TEST
    with pytest.raises(
        ValueError,
        match=r"outputs for 3 classes and 150 ID test images, and there are 150 labels from 1 to 3",
    ):
        evaluate_outputs(FIT, (output, y + 1), OOD, ["energy"])
    with pytest.raises(ValueError, match="300 ID training images, and there are 7 labels"):
        evaluate_outputs((FIT[0], FIT[1][:7]), TEST, OOD, ["energy"])
    with pytest.raises(ValueError, match="`resamples` is -1"):
        evaluate_outputs(FIT, TEST, OOD, ["energy"], resamples=-1)


def test_on_the_full_spectrum_shifted_images_join_the_test_images() -> None:
    shifted = [ImageSet(name=f"s{i}", group="shift", images=tinted(n, 5 + i)) for i, n in enumerate((30, 20))]
    names, extractor = ["energy", "knn", "adascale"], Extractor(Tint())
    result = evaluate(extractor, names, **GIVEN, ood=[dull()], shifted=shifted, resamples=20)
    plain = evaluate(extractor, names, **GIVEN, ood=[dull()], resamples=20)
    assert (result.rows, plain.full_spectrum) == (plain.rows, [])
    parts = [GIVEN["test"], *(one.images for one in shifted)]
    pixels = torch.cat([part.batch(range(len(part))) for part in parts])
    test = from_array("all", pixels, torch.cat([part.labels for part in parts]), list("abc"))
    whole = evaluate(extractor, names, fit=GIVEN["fit"], test=test, ood=[dull()], resamples=20)
    assert result.full_spectrum == whole.rows
    assert {row.n_id for row in result.full_spectrum} == {110}
