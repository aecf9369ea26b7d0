"""Files and pixels tell how images were made; noise and splits of one source tell nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from oodream.audit.shortcuts import discriminability, jpeg_quality, least_alone, pixel_statistics, shortcuts
from tests.helpers.clouds import clouds, compressed, images, photographs, resized, saved, sets


def test_a_set_of_other_files_is_a_problem_and_a_split_of_one_source_is_not(tmp_path):
    everything = photographs(180, 0)
    audited = sets(
        test=("test", saved(tmp_path / "test", everything[:60])),
        split=("near", saved(tmp_path / "split", everything[60:120])),
        jpeg=("near", saved(tmp_path / "jpeg", everything[120:], "jpg", quality=90)),
        drawn=("outliers", saved(tmp_path / "drawn", everything[120:150], "jpg")),
        few=("far", saved(tmp_path / "few", everything[:5], "jpg")),
    )
    found = {(f.kind, f.sets[-1]): f for f in shortcuts(audited, 0)}
    assert {name for _, name in found} == {"split", "jpeg", "drawn"}
    assert found["files", "jpeg"].severity == "problem"
    assert found["files", "jpeg"].share == 1
    assert found["files", "drawn"].severity == "warning"
    aurocs = {s["statistic"]: s["auroc"] for s in found["files", "jpeg"].examples}
    assert {name for name, auroc in aurocs.items() if auroc == 1} >= {"together", "format", "JPEG quality"}
    assert (aurocs["width"], aurocs["height"]) == (0.5, 0.5)
    assert "antialiased" in found["files", "jpeg"].message
    assert [found[kind, "split"].severity for kind in ("files", "pixels")] == ["fine", "fine"]
    assert found["pixels", "split"].share < 0.65


@pytest.mark.parametrize(
    ("make", "statistic"),
    [
        (lambda p: compressed(p, 20), "blockiness"),
        (lambda p: resized(p, 0.5), "finest detail"),
        (lambda p: p.convert("L").convert("RGB"), "colour"),
    ],
)
def test_pixels_tell_how_pictures_were_made(make, statistic):
    test, other = images(photographs(150, 0)), images([make(p) for p in photographs(150, 1)])
    (finding,) = shortcuts(sets(test=("test", test), other=("far", other)), 0)
    assert (finding.kind, finding.severity) == ("pixels", "warning")
    assert {s["statistic"]: s["auroc"] for s in finding.examples}[statistic] > 0.95
    (split,) = shortcuts(sets(test=("test", test), other=("far", images(photographs(150, 2)))), 0)
    assert split.share < 0.6


def test_pixel_statistics_of_made_clouds():
    y, x = np.mgrid[:32, :32]
    patterns = {
        "checkers": (x + y) % 2 * 255, "slope": 4 * x + 3 * y, "blocks": (x // 8 + y // 8) % 2 * 200,
        "moved blocks": ((x + 4) // 8 + (y + 4) // 8) % 2 * 200, "plain": 0 * x + 90,
    }  # fmt: skip
    x_B3HW = torch.from_numpy(np.stack([*patterns.values()])).byte()[:, None].repeat(1, 3, 1, 1)
    statistics = {
        key: dict(zip(patterns, values.tolist(), strict=True))
        for key, values in pixel_statistics(x_B3HW).items()
    }
    assert 10 ** statistics["finest detail"]["checkers"] == pytest.approx(1, abs=0.05)
    assert 10 ** statistics["fine detail"]["slope"] < 0.01
    assert statistics["blockiness"]["blocks"] > 3
    assert statistics["blockiness"]["moved blocks"] < -1
    assert statistics["blockiness"]["plain"] == 0
    assert not any(statistics["colour"].values())
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 32, 32)
    assert pixel_statistics(red)["colour"].tolist() == [1]


@pytest.mark.parametrize("quality", [25, 50, 75, 90, 95])
def test_jpeg_quality_is_the_one_it_was_saved_with(quality):
    file = io.BytesIO()
    clouds(1, 0)[0].save(file, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(file).quantization) == pytest.approx(quality, abs=1.5)
    assert jpeg_quality(None) == 100


def test_discriminability_is_what_scikit_learn_says():
    g = np.random.default_rng(0)
    test = {
        "a": g.normal(0, 1, 300),
        "b": g.normal(0, 1, 300),
        "wide": g.normal(0, 1, 300),
        "text": np.array(["x"] * 300),
    }
    other = {
        "a": g.normal(-1, 1, 200),
        "b": g.normal(0, 1, 200),
        "wide": g.normal(0, 1, 200),
        "text": np.array(["x", "y"] * 100),
    }
    aurocs, (low, high) = discriminability(test, other, 0)
    truth = np.repeat([0, 1], [300, 200])
    for key in ("a", "b"):
        expected = roc_auc_score(truth, np.concatenate([test[key], other[key]]))
        assert aurocs[key] == pytest.approx(max(expected, 1 - expected))
    assert aurocs["text"] == 0.75
    assert low < aurocs["together"] < high
    assert aurocs["together"] > aurocs["a"]


def test_one_fact_that_separates_better_than_all_together_is_what_counts(tmp_path):
    """Five large files among the small ones draw the regression to the wrong side of the bytes per pixel."""
    g = np.random.default_rng(0)
    small, large = np.r_[g.uniform(0, 1, 55), g.uniform(50, 500, 5)], g.uniform(0.9, 2, 60)
    everything = photographs(120, 0)
    audited = sets(
        test=("test", saved(tmp_path / "test", everything[:60])),
        other=("far", saved(tmp_path / "other", everything[60:])),
    )
    for one, sizes in zip(audited, (small, large), strict=True):
        for file, size in zip(one.images.files, sizes, strict=True):
            with open(file, "ab") as end:  # readers stop where the picture ends
                end.write(bytes(round(1000 * size)))
    finding = next(f for f in shortcuts(audited, 0) if f.kind == "files")
    aurocs = {s["statistic"]: s["auroc"] for s in finding.examples}
    assert aurocs["together"] < 0.75 < aurocs["bytes per pixel"] == round(finding.share, 4)
    assert finding.severity == "warning"


def test_the_best_of_several_facts_is_no_finding_in_noise():
    g, found, seen = np.random.default_rng(0), 0, []
    for _ in range(40):
        test, other = ({str(k): g.normal(0, 1, 30) for k in range(6)} for _ in range(2))
        aurocs, _ = discriminability(test, other, 0)
        best = max((name for name in aurocs if name != "together"), key=aurocs.__getitem__)
        seen.append(aurocs[best])
        found += least_alone(test, other, best, 0) > 0.5
    assert np.mean(seen) > 0.6
    assert found <= 2


def test_discriminability_sees_both_sides_and_nothing_in_noise():
    g = np.random.default_rng(0)
    middle = g.normal(0, 0.2, 200)
    sides = g.choice([-2, 2], 200) + g.normal(0, 0.2, 200)
    alike = g.normal(0, 0.2, 200)
    assert discriminability({"width": middle}, {"width": sides}, 0)[0]["together"] > 0.99
    aurocs, (low, _) = discriminability({"width": middle}, {"width": alike}, 0)
    assert aurocs["together"] < 0.58
    assert low < 0.5
