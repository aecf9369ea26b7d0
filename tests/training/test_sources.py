"""Sources of training batches: imagined ones, the control of known images, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from oodream.config import LatentsConfig, Optimisation
from oodream.data.images import from_array
from oodream.training.augment import grayscale
from oodream.training.batches import epoch_batches
from oodream.training.sources import (
    LatentSet,
    Source,
    check_sources,
    imagined_source,
    known_in_place,
    known_latents,
    real_outliers,
)
from tests.helpers.training import (
    UNMOVED,
    VARIED,
    images,
    known,
    latent_pairs,
    latent_sources,
    outliers,
    pixels,
)


def colored(n: int) -> torch.Tensor:
    return from_array("c", pixels(n), torch.arange(n) % 2, "ab")


def rows(x: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in x}


def test_outliers_are_varied_and_inliers_are_shown_as_they_are():
    data = colored(16)
    for kind, weight in (("outlier", 1.0), ("inlier", 0.25)):
        source = imagined_source(data, kind, VARIED, data)
        (batch,) = epoch_batches([known(images(16)), source], UNMOVED, 0, 0)
        shown = batch.images_B3HW[16:]
        assert (rows(shown) <= rows(data.batch(range(16)))) == (kind == "inlier")
        assert source.weight == weight
        assert len(batch.y_B) == (32 if kind == "inlier" else 16)


def test_imagined_images_turn_gray_as_often_as_known_ones_are():
    """Of the known images a quarter are gray, and half of that share of imagined ones is turned gray."""
    x = pixels(16)
    x[:4] = grayscale(x[:4])
    half_gray = from_array("g", x, torch.arange(16) % 2, "ab")
    assert imagined_source(colored(8), "inlier", VARIED, half_gray).grayscale_prob == pytest.approx(0.125)
    assert imagined_source(colored(8), "outlier", VARIED, colored(8)).grayscale_prob == 0


def test_the_controls_outliers_are_known_images_spread_over_the_set_and_varied():
    data = colored(100)
    config = replace(VARIED, outlier_aug_prob=0.1)
    source = known_in_place(data, 7, "outlier", config, data)
    assert torch.equal(source.data.batch(range(7)), data.batch([0, 14, 28, 42, 57, 71, 85]))
    assert torch.equal(source.data.labels, data.labels[[0, 14, 28, 42, 57, 71, 85]])
    assert (source.role, source.outlier_aug_prob, source.ratio) == ("outlier", 1.0, 1.0)
    assert source.vectors is None
    (batch, *_) = epoch_batches([known(data), source], UNMOVED, 0, 0)
    assert len(batch.y_B) == 16, "they have no label that is learned"
    assert not rows(batch.images_B3HW[16:]) & rows(data.batch(range(100)))


def test_the_controls_outliers_may_be_latents():
    data, latents, _ = latent_sources()
    source = known_in_place(latents.data, 5, "outlier", VARIED, data.data, min_weight=0.4)
    assert torch.equal(
        source.data.batch(torch.arange(5)), latents.data.batch(torch.tensor([0, 4, 9, 14, 19]))
    )
    assert source.min_weight == 0.4
    check_sources([data, latents, source])


def test_real_outliers_are_all_there_are_and_shown_as_imagined_ones():
    data, others = colored(16), colored(30).as_ood()
    source = real_outliers(others, replace(VARIED, outlier_aug_prob=0.25), data)
    assert torch.equal(source.data.batch(range(30)), others.batch(range(30)))
    assert (source.role, source.outlier_aug_prob, source.ratio) == ("outlier", 0.25, VARIED.ratio)
    assert source.vectors is None
    assert source.grayscale_prob == imagined_source(others, "outlier", VARIED, data).grayscale_prob
    few = real_outliers(others, replace(VARIED, max_outliers=3, outlier_aug_prob=0.0), data)
    assert torch.equal(few.data.batch(range(3)), others.batch([0, 10, 20])), "spread over the folder"
    (batch,) = epoch_batches([known(images(16)), few], UNMOVED, 0, 0)
    assert len(batch.y_B) == 16, "they have no label that is learned"
    assert rows(batch.images_B3HW[16:]) <= rows(others.batch([0, 10, 20]))


def test_known_latents_come_along_only_where_an_adapter_takes_them():
    data = latent_sources()[1].data
    assert known_latents(data, LatentsConfig(frac=0.3)).ratio == 0.3
    assert known_latents(data, LatentsConfig(frac=0.3, adapter="none")).ratio == 0
    sources = latent_sources()
    sources[1] = known_latents(data, LatentsConfig(adapter="none"))
    (batch, *_) = epoch_batches(sources, Optimisation(batch=8), 0, 0)
    assert len(batch.y_B) == len(batch.images_B3HW) == 8
    assert len(batch.latents.latent_LFHW) == 4


def test_pairs_are_of_known_and_of_recolored_images():
    pairs = latent_pairs(latent_sources())
    x, latents = pairs.draw(7, torch.Generator().manual_seed(0))
    for i in range(7):
        data, of_data = (
            (pairs.images.batch(range(24)), pairs.latents.batch(torch.arange(24)))
            if i < 3
            else (pairs.recolored_P3HW, pairs.recolored_latents_PFHW.float())
        )
        row = (data == x[i]).flatten(1).all(1).nonzero().item()
        assert torch.equal(latents[i], of_data[row])


def test_sources_that_make_no_batch_are_refused():
    data, latents, ood = latent_sources()
    small = LatentSet(labels=ood.data.labels, read=lambda rows: ood.data.read(rows)[:, :, :4, :4])
    empty = from_array("none", pixels(0), torch.zeros(0), "ab")
    for sources, message in (
        ([outliers(images(4))], "needs known images"),
        (
            [data, Source(role="unknown", data=images(4))],
            "role is reconstructed, known, inlier, outlier, not 'unknown'",
        ),
        ([data, data], "Two sources are known images"),
        ([data, outliers(empty)], "The outlier source is empty"),
        ([data, ood], "Latents of outliers and latents of known images are trained on together"),
        ([data, latents, ood, outliers(images(4))], "images or latents, not both"),
        ([data, latents, replace(ood, data=small)], r"shape \(4, 4, 4\), those of known images \(4, 8, 8\)"),
        ([data, replace(ood, role="inlier")], "only known images and outliers may be latents"),
    ):
        with pytest.raises(ValueError, match=message):
            check_sources(sources)
