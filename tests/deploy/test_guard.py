"""Guards: one answer however a picture is given, guarantees kept on unseen images, folders that hold nothing
but data.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from crepes.base import p_values_batch
from PIL import Image
from scipy.stats import betabinom, binom
from torch import nn

import oodream
from oodream.cli.main import main
from oodream.config import Config, EvaluateConfig, GuardConfig
from oodream.core.errors import DataError, StoreError
from oodream.core.files import read_json, write_json
from oodream.core.options import ConfigError
from oodream.core.registry import make
from oodream.core.tensors import save_tensors
from oodream.core.types import Output
from oodream.data.builtin import digits
from oodream.data.images import from_array
from oodream.data.preprocess import read_pictures
from oodream.deploy.guard import Guard
from oodream.deploy.stored import name_of
from oodream.detection.detectors import BaseDetector, NoOutliers, state
from oodream.run.layout import REGULARIZED, Layout
from oodream.run.stages.results import calibrate_guard
from oodream.runtime.answers import Prediction
from oodream.runtime.calibration import calibrate, conformal, tolerance
from oodream.runtime.held_out import HeldOut
from oodream.runtime.pictures import is_single
from tests.helpers.guarded import SIZE, calibrated, classifier, clothes, guard, save_run

CPU = torch.device("cpu")


def guard_logits(images) -> torch.Tensor:
    return classifier().extractor()(images).logits_BC


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A garment in colour, 40 wide and 28 high."""
    known = clothes()[1].batch([3])[0].permute(1, 2, 0).numpy()
    tinted = (known * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    return np.asarray(Image.fromarray(tinted).resize((40, 28), Image.Resampling.BICUBIC))


def file(path, pixels, **more):
    Image.fromarray(pixels).save(path, **more)
    return path


# Pictures


def test_however_a_picture_is_given_it_is_the_same(picture, tmp_path):
    path = file(tmp_path / "x.png", picture)
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    ways = [
        picture, picture / 255, (picture / 255).astype(np.float32), Image.fromarray(picture), path,
        str(path), path.read_bytes(), tensor, tensor.float() / 255, tensor.double() / 255,
        np.asfortranarray(picture),
    ]  # fmt: skip
    expected = guard().predict(picture)
    assert isinstance(expected, Prediction)
    for way in ways:
        assert is_single(way)
        assert torch.equal(*(torch.stack(list(read_pictures(x, SIZE))) for x in (way, picture)))
        assert guard().predict(way) == expected
        assert guard().predict([way]) == [expected]
    batches = [
        picture[None],
        picture[None] / 255,
        tensor[None],
        tensor[None].float() / 255,
        (x for x in [path]),
        (Image.open(path),),
    ]
    for batch in batches:
        assert guard().predict(batch) == [expected]
    assert guard().scores(picture).tolist() == [expected.score]


def test_mixtures_keep_their_order(picture, tmp_path):
    small, gray = picture[::2, ::2], picture[..., 0]
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    mixed = [
        picture,
        file(tmp_path / "x.png", small),
        torch.stack([tensor, tensor.flip(2)]),
        Image.fromarray(gray),
        picture / 255,
    ]
    alone = [
        *(guard().predict(x) for x in mixed[:2]),
        *(guard().predict(x) for x in mixed[2]),
        *map(guard().predict, mixed[3:]),
    ]
    for batch in (1, 2, 256):
        found = guard().predict(iter(mixed), batch=batch)
        assert [v.answer for v in found] == [v.answer for v in alone]
        assert [v.score for v in found] == pytest.approx([v.score for v in alone], abs=1e-4)
    assert alone[0] == alone[-1] != alone[1]


def test_gray_pictures(picture, tmp_path):
    gray = picture[..., 0].copy()
    path = file(tmp_path / "gray.png", gray)
    ways = [
        gray,
        gray[..., None],
        gray / 255,
        torch.from_numpy(gray),
        torch.from_numpy(gray)[None],
        Image.fromarray(gray),
        path,
    ]
    colour = guard().predict(np.repeat(gray[..., None], 3, axis=2))
    assert [guard().predict(way) for way in ways] == [colour] * len(ways)


def test_transparent_pictures_lie_on_white(picture, tmp_path):
    alpha = np.zeros((28, 40, 1), np.uint8)
    alpha[:, 10:] = 255
    rgba = np.concatenate([picture, alpha], axis=2)
    on_white = np.where(alpha == 255, picture, 255).astype(np.uint8)
    path = file(tmp_path / "a.png", rgba)
    ways = [rgba, rgba / 255, torch.from_numpy(rgba).permute(2, 0, 1), Image.fromarray(rgba), path]
    assert [guard().predict(way) for way in ways] == [guard().predict(on_white)] * len(ways)


def test_another_size_is_read_as_training_images_are(tmp_path, picture):
    from oodream.data.folders import load_folder

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(8):
            file(tmp_path / name / f"{i}.png", np.roll(picture, i, axis=1))
    images, _ = load_folder(tmp_path, SIZE)
    assert [v.score for v in guard().predict(images)] == [
        v.score for v in guard().predict(list(images.files))
    ]


def test_few_and_many():
    assert guard().predict([]) == []
    assert guard().predict(np.zeros((0, 9, 9, 3), np.uint8)) == []
    assert len(guard().scores(iter(()))) == 0
    test = clothes()[1]
    many = guard().predict(test)
    assert len(many) == len(test)
    assert [v.score for v in many] == pytest.approx(
        guard().scores(test.batch(range(len(test))), batch=100).tolist(), abs=1e-4
    )
    right = [v.likeliest == test.classes[y] for v, y in zip(many, test.labels, strict=True)]
    assert sum(right) > 0.6 * len(test)
    assert sum(v.flagged for v in many) <= 0.05 * len(test)
    assert all(v.flagged == (v.score > guard().threshold) for v in many)
    assert all(v.answer == ("unknown" if v.flagged else v.likeliest) for v in many)
    known = torch.tensor([v.known for v in many])
    assert (known == classifier().loss.phi(guard_logits(test)).sigmoid()).all()


REFUSED = [
    (np.full((9, 9, 3), 200.0), r"Floats are pixels in \[0, 1\], and these reach from 200 to 200"),
    (torch.full((3, 9, 9), -0.5), r"reach from -0\.5"),
    (np.full((9, 9), np.nan), "NaN or infinity"),
    (torch.full((2, 3, 9, 9), torch.inf), "NaN or infinity"),
    (np.zeros((9, 9, 3), np.int64), "uint8, or floats in .*, not int64"),
    (np.zeros((9, 9), bool), "not bool"),
    (np.zeros((3, 9, 9), np.uint8), r"picture's array has the shape \(H, W\), \(H, W, C\) .*not \(3, 9, 9\)"),
    (torch.zeros(9, 9, 3), r"picture's tensor has the shape \(H, W\), \(C, H, W\) .*not \(9, 9, 3\)"),
    (np.zeros(9), r"not \(9,\)"),
    (np.zeros((1, 1, 9, 9, 3)), r"not \(1, 1, 9, 9, 3\)"),
    (np.zeros((0, 9, 3), np.uint8), "has no pixels"),
    (7, "A int is no picture"),
    ([[np.zeros((9, 9))]], "Item 0 is a list, and no picture"),
    ([np.zeros((9, 9)), None], "Item 1 is a NoneType, and no picture"),
]


@pytest.mark.parametrize(("given", "why"), REFUSED)
def test_what_is_no_picture_is_refused_by_name(given, why):
    with pytest.raises(DataError, match=why):
        guard().predict(given)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "no.png").write_bytes(b"no picture")
    for path, why in (
        (tmp_path / "no.png", r"no\.png cannot be read"),
        (tmp_path / "gone.png", "gone.png cannot be read"),
    ):
        with pytest.raises(DataError, match=why):
            guard().predict([path])
    with pytest.raises(DataError, match=r"is a folder\. Give the files in it"):
        guard().predict(str(tmp_path))
    with pytest.raises(DataError, match="are 20 pixels wide, and this classifier's 12"):
        guard().predict(from_array("big", torch.zeros(2, 3, 20, 20, dtype=torch.uint8), torch.zeros(2), ()))
    with pytest.raises(ValueError, match="at least one picture"):
        guard().predict(np.zeros((9, 9, 3), np.uint8), batch=0)


# Guarantees


@pytest.mark.parametrize("detector", ["energy", "knn"])
def test_the_guarantee_is_kept_on_unseen_images_over_100_resamples(detector):
    """Calibrated on 400 of the 1,000 test images and observed on the other 600, a hundred times.

    Given the rank k, the number of alarms among m unseen images is beta-binomial, whatever the scores'
    distribution (ties make it smaller): that says how often the *observed* rate may exceed the promised one,
    and 100 resamples must agree.
    """
    scores = guard(detector).scores(clothes()[1])
    g, n, m, alpha = torch.Generator().manual_seed(0), 400, 600, 0.05
    observed = {0.95: [], None: []}
    for _ in range(100):
        order = torch.randperm(n + m, generator=g)
        held_out, unseen = scores[order[:n]], scores[order[n:]]
        for confidence, rates in observed.items():
            threshold, _ = calibrate(held_out, alpha, confidence)
            rates.append(float((unseen > threshold).double().mean()))
    k = int((scores[order[:n]] <= tolerance(scores[order[:n]], alpha, 0.95)).sum())
    allowed = betabinom.sf(alpha * m, m, n + 1 - k, k)
    assert sum(rate > alpha for rate in observed[0.95]) <= binom.ppf(0.999, 100, allowed)
    mean, spread = np.mean(observed[None]), np.std(observed[None]) / 10
    assert mean <= alpha + 3 * spread
    assert mean > alpha - 1 / n - 5 * spread - 0.01  # not by flagging nothing


@pytest.mark.parametrize("detector", ["energy", "knn"])
def test_the_guarantee_is_kept_within_its_confidence(detector):
    """Held-out images drawn from all 1,000 test images, which are then all there is to be judged: the rate is
    known exactly.
    """
    scores = guard(detector).scores(clothes()[1])
    g, rates = torch.Generator().manual_seed(1), []
    for _ in range(100):
        held_out = scores[torch.randint(len(scores), (300,), generator=g)]
        rates.append(float((scores > tolerance(held_out, 0.05, 0.9)).double().mean()))
    assert sum(rate > 0.05 for rate in rates) <= binom.ppf(0.999, 100, 0.1)
    assert np.mean(rates) > 0.02


def test_calibration_uses_the_held_out_images_alone():
    train, test = clothes()
    mine = guard("mahalanobis")
    detector = make("detectors", "mahalanobis")
    again = Guard.calibrate(classifier(), detector, train, test, alpha=0.05)
    assert again.threshold == mine.threshold == tolerance(mine.scores(test), 0.05, 0.95)
    with pytest.raises(RuntimeError, match="fit"):
        state(detector)  # the one that was given is left as it was
    average = Guard.calibrate(classifier(), "energy", train, test, alpha=0.05, confidence=None)
    assert average.threshold == conformal(guard().scores(test), 0.05) <= guard().threshold
    assert average.guarantee.kind == "conformal"


def test_calibration_uses_the_extractors_cache(tmp_path):
    mine, few = classifier(), [images.subset(torch.arange(120)) for images in clothes()]
    extractor = mine.extractor(cache=tmp_path)
    first = Guard.calibrate(mine, "energy", *few, extractor=extractor)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = Guard.calibrate(mine, "knn", *few, extractor=extractor)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert len(files) == 3, "training, held-out and pseudo-OOD images"
    assert (first.threshold, again.threshold) == tuple(
        Guard.calibrate(mine, name, *few).threshold for name in ("energy", "knn")
    )
    other = replace(mine, network=copy.deepcopy(mine.network))
    with pytest.raises(ValueError, match="another classifier's network"):
        Guard.calibrate(other, "energy", *few, extractor=extractor)


def test_a_detector_that_ranks_upside_down_warns():
    """Of 20 images a class the 50th neighbour of a known image is of another class; the default's is not."""
    train, test = clothes()
    rows = torch.cat([(train.labels == c).nonzero()[:20, 0] for c in range(4)])
    few, strange = train.subset(rows), digits(SIZE, 200)
    with pytest.warns(UserWarning, match=r"^What ranks upside down: knn \(AUROC [1-4]\d\.\d% in guard\)\."):
        fiftieth = Guard.calibrate(classifier(), make("detectors", "knn", k=50), few, test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        default = Guard.calibrate(classifier(), "knn", few, test)
    flagged = [
        sum(prediction.flagged for prediction in mine.predict(strange)) for mine in (fiftieth, default)
    ]
    assert flagged[0] < 0.1 * len(strange) < 0.2 * len(strange) < flagged[1]


def test_a_class_called_unknown_is_told_from_a_flag():
    names = ("unknown", *classifier().names[1:])
    mine = replace(guard(), classifier=replace(classifier(), names=names))
    test = clothes()[1]
    predictions = mine.predict(test)
    of_class = [p for p in predictions if p.likeliest == "unknown"]
    assert {p.answer for p in of_class} == {"unknown"}
    assert 0 < sum(p.flagged for p in of_class) < len(of_class)
    assert [p.flagged for p in predictions] == [p.flagged for p in guard().predict(test)]


def test_calibration_refuses(tmp_path):
    train, test = clothes()
    with pytest.raises(ValueError, match=r"holds OOD images \(label -1\)"):
        Guard.calibrate(classifier(), "energy", train, test.as_ood())
    with pytest.raises(ValueError, match="takes 59 held-out scores, and there are 30"):
        Guard.calibrate(classifier(), "energy", train, test.subset(torch.arange(30)))
    with pytest.raises(ValueError, match=r"No detector is called 'enrgy'\. Did you mean 'energy'"):
        Guard.calibrate(classifier(), "enrgy", train, test)


@pytest.mark.parametrize("confidence", [0.95, None])
@pytest.mark.parametrize("per_class", [False, True])
def test_another_alpha_gives_the_guard_that_calibration_would(per_class, confidence, tmp_path):
    options = {"confidence": confidence, "per_class": per_class}
    mine, test = guard(**options), clothes()[1]
    mine.save(tmp_path)
    for alpha in (0.006, 0.05, 0.137, 0.9):
        fresh = calibrated("energy", alpha=alpha, **options)
        expected = fresh.predict(test)
        for moved in (mine.at(alpha), mine.at(0.5).at(alpha), Guard.load(tmp_path).at(alpha)):
            assert (moved.threshold, moved.guarantee) == (fresh.threshold, fresh.guarantee)
            assert (moved.threshold_C == fresh.threshold_C).all()
            assert moved.predict(test) == expected
    assert mine.guarantee.alpha == 0.05
    allowed = {0.95: r"takes 2,995 .* are 1,000: these can guarantee 0\.003", None: r"guarantee 0\.001"}
    with pytest.raises(ValueError, match=allowed[confidence]):
        mine.at(0.0009 if confidence is None else 0.001)
    with pytest.raises(ValueError, match="alpha lies between 0 and 1, not at 1"):
        mine.at(1.0)


def test_a_threshold_of_ones_own_is_kept():
    mine = replace(guard(), threshold=-1e9)
    assert all(p.flagged and p.threshold == -1e9 for p in mine.predict(clothes()[1].subset(torch.arange(9))))


def test_p_values_say_how_strange_a_picture_is():
    test, strange = clothes()[1], digits(SIZE, 200)
    average = guard(alpha=0.1, confidence=None)
    for images in (test, strange):
        predictions = average.predict(images)
        assert all(p.flagged == (p.p_value <= 0.1) for p in predictions)
    p = [p.p_value for p in guard().predict(test)]
    assert sorted(p) == pytest.approx([(i + 1) / 1001 for i in range(1, 1001)], abs=1e-9)
    assert np.median([p.p_value for p in predictions]) < 0.2


def test_every_class_has_its_own_guarantee(tmp_path):
    """Thresholds and p-values of each class are those of its own held-out images; few of a class have the
    common ones.
    """
    test = clothes()[1]
    mine = guard(alpha=0.1, per_class=True)
    score_N = guard().scores(test)
    taken_N = guard_logits(test).argmax(1)
    for c, threshold in enumerate(mine.threshold_C.tolist()):
        assert threshold == tolerance(score_N[taken_N == c], 0.1, 0.95)
    predictions = mine.predict(test)
    flagged = torch.tensor([p.flagged for p in predictions])
    assert all(0 < flagged[taken_N == c].double().mean() <= 0.1 for c in range(4))
    p = p_values_batch(
        score_N.numpy(), score_N.numpy(), bins_cal=taken_N.numpy(), bins_test=taken_N.numpy(), smoothing=False
    )
    assert [v.p_value for v in predictions] == pytest.approx(p.tolist(), abs=1e-9)
    assert [v.threshold for v in predictions] == mine.threshold_C[taken_N].tolist()
    counts = dict(zip(mine.names, taken_N.bincount(minlength=4).tolist(), strict=True))
    order = sorted(counts, key=counts.get)
    needed = {name: 1 - 0.05 ** (1 / n) for name, n in counts.items()}  # the alpha that so many guarantee
    between = (needed[order[0]] + needed[order[1]]) / 2
    assert mine.guarantee.too_few == {}
    few = mine.at(between)
    assert few.guarantee.too_few == {order[0]: counts[order[0]]}
    rare = mine.names.index(order[0])
    assert few.threshold_C[rare] == few.threshold == tolerance(score_N, between, 0.95)
    assert f"{order[0]} has {counts[order[0]]}" in str(few.guarantee)
    few.save(tmp_path)
    config = read_json(tmp_path / "config.json")
    assert config["class_thresholds"] == few.threshold_C.tolist()
    assert config["guarantee"]["too_few"] == few.guarantee.too_few
    assert Guard.load(tmp_path).predict(test) == few.predict(test)


def test_the_guarantee_of_every_class_is_kept_on_unseen_images():
    """As for the common threshold: calibrated on 600 of the 1,000 test images and observed on the others."""
    score_N, taken_N = guard().scores(clothes()[1]), guard_logits(clothes()[1]).argmax(1)
    g, rates = torch.Generator().manual_seed(2), []
    for _ in range(100):
        order = torch.randperm(1000, generator=g)
        held_out, unseen = order[:600], order[600:]
        kept = HeldOut.of(score_N[held_out], nn.functional.one_hot(taken_N[held_out], 4), None)
        guarantee = kept.calibrate(0.1, None, guard().names)[1]
        assert guarantee.too_few == {}
        limit_C = torch.tensor([kept.threshold(c, guarantee) for c in range(4)])
        flagged = score_N[unseen] > limit_C[taken_N[unseen]]
        rates.append([flagged[taken_N[unseen] == c].double().mean().item() for c in range(4)])
    mean, spread = np.mean(rates, axis=0), np.std(rates, axis=0) / 10
    assert (mean <= 0.1 + 3 * spread).all()
    assert (mean >= 0.05).all()


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_prediction_sets(method, tmp_path):
    """The held-out images' own sets hold as many true classes as they must; loaded guards give the same."""
    test = clothes()[1]
    predictions = guard().predict_set(test, alpha=0.03, method=method)
    inside = [test.classes[y] in p.candidates for p, y in zip(predictions, test.labels, strict=True)]
    assert 0.97 <= np.mean(inside) <= 0.975
    assert all(p.candidates[0] == p.likeliest for p in predictions)
    assert all(len(set(p.candidates)) == len(p.candidates) for p in predictions)
    assert [replace(p, candidates=None) for p in predictions] == guard().predict(test)
    guard().save(tmp_path)
    assert Guard.load(tmp_path).predict_set(test, alpha=0.03, method=method) == predictions
    narrower = guard().predict_set(test, alpha=0.3, method=method)
    assert sum(len(p.candidates) for p in narrower) < sum(len(p.candidates) for p in predictions)
    single = guard().predict_set(test.batch([3])[0], alpha=0.03, method=method)
    assert single.candidates == predictions[3].candidates


def test_prediction_sets_are_refused_without_labels_or_images():
    fit, few = (images.subset(torch.arange(60)) for images in clothes())
    with pytest.raises(
        ValueError, match=r"at most 0\.01 of known images take 99 .* there are 60: .* 0\.0164"
    ):
        Guard.calibrate(classifier(), "energy", fit, few).predict_set(few, alpha=0.01)
    unlabelled = Guard.calibrate(classifier(), "energy", fit, few, labelled=False)
    with pytest.raises(ValueError, match="true labels, and this guard was made without"):
        unlabelled.predict_set(few)
    with pytest.raises(ValueError, match="no prediction sets by 'all'"):
        guard().predict_set([], method="all")


def test_a_guard_without_labels_is_saved_as_such(tmp_path):
    fit, few = (images.subset(torch.arange(60)) for images in clothes())
    Guard.calibrate(classifier(), "energy", fit, few, labelled=False).save(tmp_path)
    again = Guard.load(tmp_path)
    assert again.held_out.standing is None
    assert again.predict(few)[0].p_value > 0


def test_a_detector_that_needs_gradients(tmp_path):
    few = [images.subset(torch.arange(120)) for images in clothes()]
    mine = Guard.calibrate(classifier(), make("detectors", "odin", epsilon=0.01), *few)
    assert sum(v.flagged for v in mine.predict(few[1])) <= 6
    mine.save(tmp_path)
    assert Guard.load(tmp_path).predict(few[1]) == mine.predict(few[1])


def test_drift_of_pictures_and_of_scores():
    test = clothes()[1]
    scores = guard().scores(test)
    seen = guard().drift(test)
    assert seen.total.n == 1000
    assert seen.total.distance < 0.002
    assert seen.total.share <= 0.05
    for given in (scores, scores.numpy(), scores.tolist(), list(scores.numpy())):
        assert guard().drift(given).total == seen.total
    noise = np.random.default_rng(0).integers(0, 256, (300, SIZE, SIZE, 3), dtype=np.uint8)
    changed = guard().drift(scores, window=300).add(guard().scores(noise))
    assert changed.latest.p_moved < 1e-6
    assert changed.evidence > 6
    assert guard().drift().total is None


# Folders


@pytest.mark.parametrize(
    ("detector", "options"),
    [("energy", {}), ("mahalanobis", {}), ("ash", {"variant": "b", "percentile": 0.8})],
)
def test_a_folder_gives_the_same_guard(detector, options, tmp_path):
    test = clothes()[1]
    mine = calibrated(make("detectors", detector, **options))
    mine.save(tmp_path / "own")
    classifier().save(tmp_path / "run" / "classifier" / "regularized-s0")
    mine.save(tmp_path / "run" / "guard", "classifier/regularized-s0")
    for folder in (tmp_path / "own", str(tmp_path / "own"), tmp_path / "run", tmp_path / "run" / "guard"):
        again = Guard.load(folder)
        assert again.predict(test) == mine.predict(test)
        assert (again.names, again.size, again.threshold, again.guarantee) == (
            mine.names,
            mine.size,
            mine.threshold,
            mine.guarantee,
        )
        arrays, expected = again.held_out.arrays(), mine.held_out.arrays()
        assert arrays.keys() == expected.keys()
        assert all((array == arrays[key]).all() for key, array in expected.items())
        assert type(again.detector) is type(mine.detector)
        assert all(getattr(again.detector, key) == value for key, value in options.items())
        assert state(again.detector).keys() == state(mine.detector).keys()
        assert all(
            torch.equal(tensor, state(again.detector)[key]) for key, tensor in state(mine.detector).items()
        )
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".json", ".safetensors"}
    again.save(tmp_path / "again")
    for path in (tmp_path / "own").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize("path", ["../other", "/etc", "classifier/../../other", "link"])
def test_a_path_out_of_the_run_is_refused(path, tmp_path):
    classifier().save(tmp_path / "other")
    run = save_run(tmp_path / "run")
    (run / "link").symlink_to(tmp_path / "other")
    config = read_json(run / "guard" / "guard.json")
    write_json(run / "guard" / "guard.json", {**config, "classifier": path})
    for folder in (run, run / "guard"):
        with pytest.raises(StoreError, match=f"{path} lies outside"):
            Guard.load(folder)


EVIL = "open(__file__ + '.ran', 'w')\nfrom oodream.detection.detectors.energy import Energy\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["detector"].update(name="evil_module:Energy"),
        lambda config: config["detector"].update(name="os:system", options={"command": "touch ran"}),
        lambda config: config["classifier"].update(loss="evil_module:Energy"),
        lambda config: config["classifier"].update(backbone="torchscript:evil.pt"),
    ],
)
def test_no_code_is_run_for_a_folder(change, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    guard().save(tmp_path / "g")
    config = read_json(tmp_path / "g" / "config.json")
    change(config)
    write_json(tmp_path / "g" / "config.json", config)
    with pytest.raises(StoreError, match=r"names the plug-in .*runs its code"):
        Guard.load(tmp_path / "g")
    assert main(["score", "x.png", "--run", str(tmp_path / "g")]) == 2
    assert not list(tmp_path.glob("*ran"))


def test_plugins_load_when_they_are_wanted(tmp_path, monkeypatch):
    (tmp_path / "my_detector.py").write_text(
        "from dataclasses import dataclass\nfrom oodream.detection.detectors import BaseDetector\n"
        "@dataclass\nclass Largest(BaseDetector):\n    bias: float = 0.0\n"
        "    def _score(self, output):\n        return -output.logits_BC.amax(1) + self.bias\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = calibrated(make("detectors", "my_detector:Largest", bias=2.0))
    assert name_of(mine.detector) == "my_detector:Largest"
    mine.save(tmp_path / "g")
    test = clothes()[1]
    assert Guard.load(tmp_path / "g", plugins=True).predict(test) == mine.predict(test)
    with pytest.raises(
        StoreError, match=r"plug-in 'my_detector:Largest'.* the folder and that code, .* --plugins"
    ):
        Guard.load(tmp_path / "g")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("loss", lambda config: config["classifier"].update(loss="not_here:Bound")),
        ("detector", lambda config: config.update(detector={"name": "not_here:Bound", "options": {}})),
    ],
)
def test_code_that_is_not_here_is_no_damage(kind, change, tmp_path):
    guard().save(tmp_path)
    config = read_json(tmp_path / "config.json")
    change(config)
    write_json(tmp_path / "config.json", config)
    with pytest.raises(StoreError, match=rf"^The {kind} 'not_here:Bound' cannot be imported: .*") as error:
        Guard.load(tmp_path, plugins=True)
    assert str(error.value).endswith(f"({tmp_path / 'config.json'} names it)")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "__post_init__",
            r"^detector 'failing_here:Failing', made with no option.*: TypeError: too many \(.*, line 8\)",
        ),
        ("_score", r"^The guard in .* does not answer\. Failing: TypeError: too many \(.*, line 8\)"),
    ],
)
def test_a_plug_in_that_fails_is_no_damage(method, message, tmp_path, monkeypatch):
    (tmp_path / "failing_here.py").write_text(
        "from dataclasses import dataclass\nfrom oodream.detection.detectors import BaseDetector\n"
        "@dataclass\nclass Failing(BaseDetector):\n    def _score(self, output):\n"
        "        return output.logits_BC.amax(1)\n"
        f"    def {method}(self, *_):\n        raise TypeError('too many')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_here", raising=False)
    guard("energy").save(tmp_path / "g")
    config = read_json(tmp_path / "g" / "config.json")
    config |= {"detector": {"name": "failing_here:Failing", "options": {}}}
    write_json(tmp_path / "g" / "config.json", config)
    with pytest.raises(StoreError, match=message) as error:
        Guard.load(tmp_path / "g", plugins=True)
    assert "damaged" not in str(error.value)


def test_damaged_folders_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"holds no guard: neither config\.json nor guard/guard\.json"):
        Guard.load(tmp_path)
    guard().save(tmp_path)
    config = read_json(tmp_path / "config.json")
    for key in ("classifier", "detector", "threshold", "guarantee"):
        write_json(tmp_path / "config.json", {k: v for k, v in config.items() if k != key})
        with pytest.raises(StoreError, match=rf"config\.json or its tensors are damaged.*{key}"):
            Guard.load(tmp_path)
    write_json(tmp_path / "config.json", {**config, "detector": {"name": "knn", "options": {}}})
    with pytest.raises(StoreError, match="not what a KNN has learned"):
        Guard.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StoreError, match=r"is damaged .* Make the guard again: .* with --redo"):
        Guard.load(tmp_path)
    write_json(tmp_path / "config.json", config)
    save_tensors(tmp_path / "guard.safetensors", {"other": torch.zeros(1)})
    with pytest.raises(StoreError, match="score_N"):
        Guard.load(tmp_path)


def test_a_guard_of_an_earlier_version_is_refused(tmp_path):
    guard().save(tmp_path)
    some = torch.from_numpy(guard().held_out.score_N[::2].copy())
    save_tensors(tmp_path / "guard.safetensors", {"score_Q": some})
    with pytest.raises(
        StoreError, match=r"written by version 0\.3 or earlier, .* Make the guard again: .*--redo guard"
    ):
        Guard.load(tmp_path)


# Outliers


def test_a_guard_learns_from_outliers_and_keeps_what_it_learned(tmp_path):
    outliers = digits(SIZE, 300, 0)
    mine = calibrated("outlier_probe", outliers=outliers)
    assert mine.scores(outliers).median() > mine.threshold
    mine.save(tmp_path)
    loaded = Guard.load(tmp_path)
    assert torch.equal(loaded.scores(outliers), mine.scores(outliers))
    with pytest.raises(NoOutliers, match="OutlierProbe learns from outliers, and there are none: give `out"):
        calibrated("outlier_probe")
    with pytest.raises(DataError, match="are 20 pixels wide, and this classifier's 12"):
        calibrated("outlier_probe", outliers=digits(20, 9, 0))


def test_outliers_are_nothing_to_other_detectors():
    plain, more = guard("mahalanobis"), calibrated("mahalanobis", outliers=digits(SIZE, 300, 0))
    assert more.threshold == plain.threshold
    assert all(torch.equal(state(more.detector)[key], value) for key, value in state(plain.detector).items())


# The package, the stage and the command


def test_the_package_shows_the_guard_and_loads_nothing_for_it():
    assert oodream.Guard is Guard
    code = "import sys, oodream; assert not {'torch', 'numpy'} & sys.modules.keys(); oodream.__version__"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(AttributeError, match="no attribute 'Gard'"):
        _ = oodream.Gard


def stage(folder, test, guard_options=None, **options):
    """What the stage that calibrates a run's guard needs of a run."""
    train, layout = clothes()[0], Layout(folder)
    classifier().save(layout.classifier(REGULARIZED, 0))
    job = SimpleNamespace(
        config=Config(evaluate=EvaluateConfig(**options), guard=GuardConfig(**guard_options or {})),
        inputs=SimpleNamespace(train=train, test=test),
        run=SimpleNamespace(classifier=lambda kind, seed: classifier()),
        layout=layout,
        device=CPU,
    )
    return calibrate_guard(job)


def test_the_stage_makes_the_runs_guard_and_checks_it_on_halves(tmp_path):
    test = clothes()[1]
    summary = stage(tmp_path, test, detectors=("mahalanobis", "energy"))
    mine = Guard.load(tmp_path)
    assert name_of(mine.detector) == "mahalanobis"
    assert mine.threshold == guard("mahalanobis").threshold == pytest.approx(summary["threshold"], abs=1e-4)
    assert summary["other_half"] == pytest.approx(0.05, abs=0.04)
    assert summary["other_half_images"] == len(test) // 2
    config = json.loads((tmp_path / "guard" / "guard.json").read_text())
    assert config["classifier"] == "classifier/regularized-s0"
    assert not (tmp_path / "guard" / "model.safetensors").exists()
    stage(
        tmp_path,
        test,
        {"alpha": 0.2, "confidence": 0.0, "detector": "ash@b"},
        detectors=("energy", "ash@b"),
        detector_options={"ash@b.variant": "b"},
    )
    again = Guard.load(tmp_path)
    assert (again.guarantee.kind, again.guarantee.alpha, again.detector.variant) == ("conformal", 0.2, "b")
    summary = stage(tmp_path, test, {"per_class": True}, detectors=("mahalanobis",))
    assert Guard.load(tmp_path).per_class
    assert "class by class" in summary["guarantee"]


def test_too_few_test_images_make_no_guard_and_no_error(tmp_path):
    summary = stage(tmp_path, clothes()[1].subset(torch.arange(58)))
    assert list(summary) == ["none"]
    assert "takes 59 known test images" in summary["none"]
    assert "there are 58" in summary["none"]
    with pytest.raises(StoreError, match="holds no guard"):
        Guard.load(tmp_path)


def test_impossible_guarantees_are_refused_before_any_work():
    for key, value in (("alpha", 0.0), ("alpha", 1.0), ("confidence", 1.0)):
        with pytest.raises(ConfigError, match=f"{key} must be between 0 and 1, .*, not {value}"):
            GuardConfig(**{key: value})


def test_score_asks_the_guard_of_its_classifier(tmp_path, picture, capsys):
    run, path = save_run(tmp_path / "run"), file(tmp_path / "x.png", picture)
    (tmp_path / "bad.png").write_bytes(b"no")
    classifier().save(run / "classifier" / "baseline-s0")

    def as_json(path, prediction):
        return json.loads(json.dumps({"file": str(path), **vars(prediction)}))

    def scored(*more, code=0):
        assert main(["score", str(path), *more, "--json", "--device", "cpu"]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    expected = guard().predict(path)
    assert scored("--run", str(run)) == [as_json(path, expected)]
    (tmp_path / "list.txt").write_text(f"{path}\n")
    assert main(["score", str(tmp_path / "list.txt"), "--run", str(run), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == as_json(path, expected)
    assert scored(str(tmp_path / "bad.png"), "--run", str(run), code=2)[0]["score"] == expected.score
    guard().save(tmp_path / "exported")
    assert scored("--run", str(tmp_path / "exported"))[0]["threshold"] == guard().threshold
    for own in (
        ["--run", str(run), "--classifier", "baseline-s0"],
        ["--run", str(run / "classifier" / "regularized-s0")],
    ):
        assert scored(*own)[0]["threshold"] == classifier().threshold != guard().threshold
    moved = guard().at(0.5)
    (line,) = scored("--run", str(run), "--alpha", "0.5")
    assert line == as_json(path, moved.predict(path))
    assert line["threshold"] == moved.threshold < guard().threshold
    assert main(["score", str(path), "--run", str(run), "--alpha", "0.001"]) == 2
    assert "these can guarantee 0.003" in capsys.readouterr().err
    (run / "guard" / "guard.json").unlink()
    assert main(["score", str(path), "--run", str(run), "--alpha", "0.5"]) == 2
    assert "--alpha moves a guard's threshold" in capsys.readouterr().err
    assert scored("--run", str(run))[0]["threshold"] == classifier().threshold
    assert main(["score", str(path), "--run", str(run)]) == 0
    assert capsys.readouterr().out.split()[1] == "score"


@dataclass
class Constant(BaseDetector):
    """Gives every image the same score."""

    value: str = "0"

    def _score(self, output: Output) -> torch.Tensor:
        return torch.full((len(output),), float(self.value), dtype=torch.float64)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (
            "-1",
            r"gives all 1,000 held-out images the score -1: it tells no image from another\. Choose another",
        ),
        ("nan", r"gives 1,000 of 1,000 held-out images a score that is NaN or infinite\. Choose another"),
    ],
)
def test_scores_that_no_threshold_can_come_from_are_refused(value, sentence):
    with pytest.raises(ValueError, match=rf"^The detector {__name__}:Constant {sentence} detector\.$"):
        calibrated(Constant(value=value))


def test_the_stage_names_a_detector_that_makes_no_guard_and_how_to_choose_another(tmp_path):
    sentence = rf"No guard can be made of the detector '{__name__}:Constant': .*--guard\.detector.*--evaluate"
    with pytest.raises(ValueError, match=sentence):
        stage(tmp_path, clothes()[1], detectors=(f"{__name__}:Constant", "energy"))
