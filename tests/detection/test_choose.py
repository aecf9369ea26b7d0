"""The choice of a detector on images of no test set."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from oodream.core.registry import make, names
from oodream.core.types import Head, Output
from oodream.data.images import ImageSet, from_array
from oodream.detection.choose import LEFT_OUT, choose_detector, folds_of, without_labels
from oodream.detection.detectors import probes_of
from oodream.detection.fit import Lesson, Training
from oodream.functional.metrics import auroc
from oodream.models.inference import Extractor


class Channels(nn.Module):
    """Logits and features are an image's channels: its label's is the brightest."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = torch.eye(3) * 10

    def forward(self, images: torch.Tensor) -> Output:
        z = images.float().mean((2, 3)) / 255
        return Output(logits_BC=self.head(z), z_BF=z)


def known(n: int = 90, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randint(0, 60, (n, 3, 4, 4), generator=g)
    x[torch.arange(n), y] += 180
    return from_array(f"known {seed}", x.to(torch.uint8), y, ("a", "b", "c"))


def unknown(kind: str, n: int = 60):
    g = torch.Generator().manual_seed(7)
    x = torch.randint(0, 60, (n, 3, 4, 4), generator=g)
    if kind == "twice":  # bright in two channels: unlike any class, and with large logits
        x[:, :2] += 180
    images = from_array(kind, x.to(torch.uint8), torch.full((n,), -1), ())
    return ImageSet(name=kind, group="near", images=images)


def test_the_best_by_the_mean_over_the_sets_comes_first():
    sets = [unknown("dark"), unknown("twice")]
    detectors = {"energy": {}, "mahalanobis": {}, "msp": {}}
    extractor = Extractor(Channels())
    choice = choose_detector(extractor, detectors, fit=known(), known=known(seed=1), unknown=sets)
    assert choice.candidates[0].name == choice.best.name == "mahalanobis"
    for one in choice.candidates:
        score = [
            one.detector.score(extractor(s, probes_of([one.detector])))
            for s in (known(seed=1), *(s.images for s in sets))
        ]
        assert one.aurocs == {s.name: auroc(score[0], x) for s, x in zip(sets, score[1:], strict=True)}
        assert one.mean == pytest.approx(sum(one.aurocs.values()) / 2)
    means = [one.mean for one in choice.candidates]
    assert means == sorted(means, reverse=True)


def test_of_equally_good_ones_the_first_wins():
    same = {"max_logit": {}, "energy": {}}
    sets = [unknown("dark")]
    for order in (same, dict(reversed(same.items()))):
        choice = choose_detector(Extractor(Channels()), order, fit=known(), known=known(seed=1), unknown=sets)
        assert {one.mean for one in choice.candidates} == {1.0}
        assert choice.best.name == next(iter(order))


def test_fixed_options_stay_and_what_cannot_be_used_is_named():
    class Headless(Channels):
        def forward(self, images):
            output = super().forward(images)
            return Output(logits_BC=output.logits_BC, z_BF=output.z_BF[:, :0])

    network = Headless()
    arguments = {"fit": known(), "known": known(seed=1), "unknown": [unknown("dark")]}
    choice = choose_detector(Extractor(network), {"knn": {"k": 7}, "gen": {"m": 2}}, **arguments)
    assert [(one.name, one.options["m"]) for one in choice.candidates] == [("gen", 2)]
    assert "needs features" in choice.skipped["knn"]
    with pytest.raises(ValueError, match=r"None of the detectors can be used:\n  knn: .*needs features"):
        choose_detector(Extractor(network), {"knn": {}}, **arguments)


def test_classes_left_out_are_those_that_the_detector_has_not_learned_of():
    """Beside a network of the other classes alone: the same numbers, as near ones."""
    four = nn.Linear(4, 4, bias=False)
    four.weight.data = torch.eye(4) * 3
    g = torch.Generator().manual_seed(3)

    class Flat(nn.Module):
        head = four

        def forward(self, images: torch.Tensor) -> Output:
            z = images.float().flatten(1)[:, :4] / 255
            return Output(logits_BC=self.head(z), z_BF=z)

    def drawn(n: int):
        y = torch.arange(n) % 4
        x = torch.randint(0, 120, (n, 3, 2, 2), generator=g)
        x.view(n, 12)[torch.arange(n), y] += 120
        return from_array(f"drawn {n}", x.to(torch.uint8), y, tuple("abcd"))

    fit, other = drawn(200), drawn(100)
    extractor = Extractor(Flat())
    choice = choose_detector(
        extractor, {"mahalanobis": {}, "energy": {}}, fit=fit, known=other, unknown=[unknown("dark")],
        leave_out=True,
    )  # fmt: skip
    folds = folds_of(4)
    assert [len(fold) for fold in folds] == [1, 1, 1]
    for one in choice.candidates:
        expected = []
        for (left,) in (fold.tolist() for fold in folds):
            keep = [c for c in range(4) if c != left]
            outputs = [extractor(images) for images in (fit, other)]
            cut = [Output(logits_BC=out.logits_BC[:, keep], z_BF=out.z_BF) for out in outputs]
            rows = [torch.isin(images.labels, torch.tensor(keep)) for images in (fit, other)]

            def part(i: int, mask: torch.Tensor, cut=cut) -> Output:
                return Output(logits_BC=cut[i].logits_BC[mask], z_BF=cut[i].z_BF[mask])

            y = torch.tensor([keep.index(c) for c in fit.labels[rows[0]].tolist()])
            head = Head(weight_CF=four.weight.data[keep], bias_C=torch.zeros(3))
            detector = make("detectors", one.name).fit(part(0, rows[0]), y, head)
            expected.append(auroc(detector.score(part(1, rows[1])), detector.score(part(1, ~rows[1]))))
        assert one.aurocs[LEFT_OUT] == pytest.approx(sum(expected) / 3)
        assert one.groups == {"dark": "near", LEFT_OUT: "near"}
        assert one.mean == pytest.approx((one.aurocs["dark"] + one.aurocs[LEFT_OUT]) / 2)


def test_near_and_far_count_alike_and_two_classes_cannot_be_left_out():
    sets = [replace(unknown(kind), group=group) for kind, group in (("dark", "far"), ("twice", "near"))]
    sets.append(replace(unknown("dark", 30), name="dim", group="far"))
    (one,) = choose_detector(
        Extractor(Channels()), {"energy": {}}, fit=known(), known=known(seed=1), unknown=sets
    ).candidates
    far = (one.aurocs["dark"] + one.aurocs["dim"]) / 2
    assert one.mean == pytest.approx((far + one.aurocs["twice"]) / 2)
    assert folds_of(2) == []
    assert [len(fold) for fold in folds_of(3)] == [1, 1, 1]
    assert [len(fold) for fold in folds_of(100)] == [20, 20, 20]


def test_which_detectors_need_no_labels():
    left = without_labels(names("detectors"))
    assert {"energy", "knn", "vim", "react"} <= {*left}
    assert not {"mahalanobis", "she", "gmm", "openmax", "temperature"} & {*left}


def test_who_learns_from_outliers_is_tried_on_classes_left_out_too():
    """Of the lesson's known images those of the classes left out are left out, and no outlier is."""
    lesson = Lesson(outliers=unknown("twice").images, known=[known(seed=4), known(30, seed=5)])
    extractor, fit, other = Extractor(Channels()), known(), known(seed=1)
    choice = choose_detector(
        extractor, {"energy_probe": {}}, fit=fit, known=other, unknown=[unknown("dark")], outliers=lesson,
        leave_out=True,
    )  # fmt: skip
    shown = [extractor(images) for images in lesson.known]
    logits, y = torch.cat([o.logits_BC for o in shown]), torch.cat([s.labels for s in lesson.known])
    expected = []
    for (left,) in (fold.tolist() for fold in folds_of(3)):
        kept = [c for c in range(3) if c != left]
        rows = y != left
        taught = Output(logits_BC=logits[rows][:, kept], z_BF=logits[rows][:, kept])
        outliers = extractor(lesson.outliers).logits_BC[:, kept]
        training = Training(taught, y[rows], None, Output(logits_BC=outliers, z_BF=outliers))
        probe = training.fit(make("detectors", "energy_probe", **choice.best.options))
        scores = extractor(other).logits_BC[:, kept]
        score = probe.score(Output(logits_BC=scores, z_BF=scores))
        expected.append(auroc(score[other.labels != left], score[other.labels == left]))
    assert choice.best.aurocs[LEFT_OUT] == pytest.approx(sum(expected) / len(expected))
