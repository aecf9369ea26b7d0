"""Training batches: the very bytes of earlier ones, which rows stand where, and how processes share them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from oodream.config import Optimisation
from oodream.core.distributed import Shard
from oodream.data.images import Images, from_array
from oodream.training.batches import Batch, as_shown, epoch_batches
from oodream.training.detail import Detail
from oodream.training.policies import augmix
from oodream.training.sources import LatentSet, Source
from tests.helpers.training import UNMOVED, images, known, latent_sources, outliers, pixels

GOLDEN = Path(__file__).parents[1] / "golden" / "batches.safetensors"
SEED, EPOCH = 3, 1
INTERPOLATED = {"known-cropped", "outliers", "latents", "latents-mixed"}

# Golden batches: those that `Mixture`, which sources replaced, made of the same images with the same seed


def recorded() -> dict[str, tuple[list[Source], Optimisation]]:
    """The sources of the recorded batches, from one generator in the recorded order."""
    g = torch.Generator().manual_seed(0)

    def random_images(name: str, n: int) -> Images:
        noise = torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8)
        return from_array(name, noise, torch.arange(n) % 3, "abc")

    id_images, rebuilt, imagined = (
        random_images(name, n) for name, n in (("known", 40), ("rec", 10), ("out", 12))
    )
    latents, ood = torch.randn(40, 4, 2, 2, generator=g), torch.randn(12, 4, 2, 2, generator=g)
    torch.randint(0, 256, (6, 3, 8, 8), generator=g, dtype=torch.uint8), torch.randn(6, 4, 2, 2, generator=g)
    vectors = F.normalize(torch.randn(12, 5, generator=g), dim=1)
    moved = Optimisation(batch=16, crop_padding=2, flip=True)
    cropped = Optimisation(batch=16, min_area=0.3, flip=False)
    a = known(id_images)
    b = Source(role="reconstructed", data=rebuilt, ratio=0.25)
    c = Source(
        role="known", data=LatentSet(labels=id_images.labels, read=lambda rows: latents[rows]), ratio=0.25
    )

    def unknown(data: Images | LatentSet = imagined, role: str = "outlier", **other) -> Source:
        return Source(
            role=role, data=data, **{"ratio": 0.5, "grayscale_prob": 0.5, "vectors": vectors, **other}
        )

    as_latents = LatentSet(labels=imagined.labels, read=lambda rows: ood[rows])
    return {
        "known": ([a], moved),
        "known-cropped": ([a], cropped),
        "outliers": ([a, b, unknown(outlier_aug_prob=0.5)], moved),
        "outliers-plain": ([a, unknown(ratio=1.0, grayscale_prob=0.0)], moved),
        "inliers": ([a, b, unknown(role="inlier", weight=0.5, vectors=None)], moved),
        "latents": ([a, b, c, unknown(as_latents, outlier_aug_prob=0.8)], moved),
        "latents-mixed": ([a, c, unknown(as_latents, ratio=1.0, min_weight=0.3)], cropped),
    }


def close(name: str, expected: torch.Tensor, actual: torch.Tensor) -> bool:
    """Equal; pixels that are interpolated, and floats, may round otherwise on another processor."""
    if expected.dtype == torch.uint8 and name in INTERPOLATED:
        off = (expected.int() - actual.int()).abs()  # contrast may multiply a difference of 1 by 3
        return bool(off.max() <= 3 and off.float().mean() < 0.05)
    if expected.dtype == torch.float32:
        return torch.allclose(expected, actual, rtol=1e-6, atol=1e-6)
    return torch.equal(expected, actual)


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """A batch's tensors, with its latents and what becomes of previews of them."""
    tensors = {key: x for key, x in vars(batch).items() if isinstance(x, torch.Tensor)}
    for again in ("latent_OFHW", "name_O"):  # which are among the latents, and the classes near_O
        tensors.pop(again, None)
    if batch.latents is not None:
        latents = batch.latents.latent_LFHW
        enlarged = latents[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)
        preview = ((enlarged.clamp(-2, 2) + 2) * 63).to(torch.uint8)
        shown = batch.latents.augment(preview)
        tensors |= {"latent": latents, "pair": batch.latents.pair_K3HW, "shown": shown}
    return tensors


@pytest.mark.parametrize("name", recorded())
def test_batches_are_those_that_were_recorded(name):
    sources, config = recorded()[name]
    compared = 0
    with safe_open(GOLDEN, "pt") as golden:
        keys = [key for key in golden.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        for i, batch in enumerate(epoch_batches(sources, config, SEED, EPOCH)):
            at, actual = f"{name}/0of1/{i}/", tensors_of(batch)
            expected = {key.removeprefix(at): golden.get_tensor(key) for key in keys if key.startswith(at)}
            if expected:
                assert expected.keys() == actual.keys()
            for key, tensor in expected.items():
                assert tensor.shape == actual[key].shape, key
                assert close(name, tensor, actual[key]), at + key
                compared += 1
    assert compared == len(keys) > 0


# What is where


def test_known_rows_come_first_reconstructed_ones_before_all_and_then_outliers():
    sources = [
        known(images(64)),
        Source(role="reconstructed", data=images(32, 80), ratio=0.25),
        outliers(images(10, 160), ratio=0.5),
    ]
    batches = list(epoch_batches(sources, UNMOVED, 0, 0))
    assert len(batches) == 4
    for batch in batches:
        brightness = batch.images_B3HW.float().mean((1, 2, 3))
        assert len(batch.y_B) == len(batch.weight_B) == 16
        assert len(brightness) == 24
        assert ((brightness[:4] > 80) & (brightness[:4] < 140)).all()
        assert (brightness[4:16] < 60).all()
        assert (brightness[16:] > 160).all()


def test_every_id_image_is_seen_once_an_epoch():
    data = images(48)
    seen = torch.cat([batch.images_B3HW for batch in epoch_batches([known(data)], UNMOVED, 0, 0)])
    sums = (x.flatten(1).float().sum(1).sort().values for x in (seen, data.batch(range(48))))
    assert torch.equal(*sums)


def test_a_set_smaller_than_a_batch_makes_one_batch():
    (only,) = epoch_batches([known(images(5))], Optimisation(batch=16), 0, 0)
    assert len(only.y_B) == 5


def test_outliers_bring_their_classes_and_vectors():
    vectors = torch.eye(10)
    data = images(10, 160)
    (batch,) = epoch_batches([known(images(16)), outliers(data, ratio=0.5, vectors=vectors)], UNMOVED, 0, 0)
    rows = batch.vector_OD.argmax(1)
    assert len(rows) == 8
    assert torch.equal(batch.images_B3HW[16:], data.batch(rows))
    assert torch.equal(batch.near_O, data.labels[rows])
    assert torch.equal(batch.name_O, data.labels[rows])
    names = torch.arange(10) + 50
    (batch,) = epoch_batches(
        [known(images(16)), outliers(data, ratio=0.5, vectors=vectors, names=names)], UNMOVED, 0, 0
    )
    assert torch.equal(batch.name_O, names[batch.vector_OD.argmax(1)])
    (batch,) = epoch_batches([known(images(16)), outliers(data.as_ood("unlabelled"))], UNMOVED, 0, 0)
    assert (batch.name_O == 0).all(), "what has no name is one thing"
    (batch,) = epoch_batches([known(images(16))], UNMOVED, 0, 0)
    assert batch.near_O is None
    assert batch.vector_OD is None


def test_inliers_are_known_images_with_a_weight():
    inliers = images(10, 160)
    sources = [known(images(32)), Source(role="inlier", data=inliers, ratio=0.5, weight=0.3)]
    label = dict(zip(inliers.batch(range(10)).sum((1, 2, 3)).tolist(), inliers.labels.tolist(), strict=True))
    for batch in epoch_batches(sources, UNMOVED, 0, 0):
        brightness = batch.images_B3HW.float().mean((1, 2, 3))
        assert len(batch.images_B3HW) == len(batch.y_B) == 24
        assert (brightness[:16] < 80).all()
        assert (brightness[16:] > 160).all()
        assert batch.weight_B.tolist() == [1.0] * 16 + [pytest.approx(0.3)] * 8
        assert [label[value] for value in batch.images_B3HW[16:].sum((1, 2, 3)).tolist()] == batch.y_B[
            16:
        ].tolist()


def test_without_a_single_inlier_known_images_keep_their_weight():
    sources = [known(images(16)), Source(role="inlier", data=images(10, 160), ratio=0.0, weight=0.3)]
    (batch,) = epoch_batches(sources, UNMOVED, 0, 0)
    assert batch.weight_B.tolist() == [1.0] * 16


# How they are shown


def test_a_share_of_the_outliers_is_turned_gray():
    config = Optimisation(batch=400, crop_padding=0, flip=False)

    def gray(prob: float) -> float:
        sources = [known(images(400)), outliers(images(400), grayscale_prob=prob)]
        (batch,) = epoch_batches(sources, config, 0, 0)
        without_colour = (batch.images_B3HW == batch.images_B3HW[:, :1]).flatten(1).all(1)
        assert not without_colour[:400].any(), "ID images stay as they are"
        return without_colour[400:].float().mean().item()

    assert gray(0.0) == 0
    assert gray(0.5) == pytest.approx(0.5, abs=0.1)
    assert gray(1.0) == 1


def test_outliers_are_varied_anew_and_known_images_never():
    data = from_array("id", pixels(16), torch.arange(16) % 2, "ab")
    one = from_array("ood", pixels(1, 16), torch.tensor([0]), "ab")
    sources = [known(data), outliers(one, outlier_aug_prob=0.5)]
    (batch,) = epoch_batches(sources, UNMOVED, 0, 0)
    shown = {x.numpy().tobytes() for x in batch.images_B3HW[:16]}
    assert shown == {x.numpy().tobytes() for x in data.batch(range(16))}
    varied = {x.numpy().tobytes() for x in batch.images_B3HW[16:]}
    assert 8 < len(varied) <= 16, "of one outlier many"
    (again,), (other,) = epoch_batches(sources, UNMOVED, 0, 0), epoch_batches(sources, UNMOVED, 0, 1)
    assert torch.equal(again.images_B3HW, batch.images_B3HW)
    assert {x.numpy().tobytes() for x in other.images_B3HW[16:]} != varied


# Several processes


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [*recorded(), "softened"])
def test_processes_share_the_batch_that_one_would_have(name, count):
    """Each image and latent is in one, shown as it would be to one process alone; all know the rest."""
    if name == "softened":
        sources, config = recorded()["outliers"]
        detail = Detail(known=images(6, size=8), reconstructed=images(6, 9, size=8))
        sources = [replace(source, soften=0.5, detail=detail, policy=augmix) for source in sources]
    else:
        sources, config = recorded()[name]
    alone = list(epoch_batches(sources, config, SEED, EPOCH))
    shared = [list(epoch_batches(sources, config, SEED, EPOCH, Shard(i, count))) for i in range(count)]
    for whole, parts in zip(alone, zip(*shared, strict=True), strict=True):
        first = len(whole.images_B3HW)
        expected, actual = tensors_of(whole), [tensors_of(part) for part in parts]
        split = {
            "images_B3HW": [part.mine[part.mine < first] for part in parts],
            "latent": [part.mine[part.mine >= first] - first for part in parts],
        }
        split["shown"] = split["latent"]
        if whole.latents is not None:
            pairs = len(whole.latents.pair_K3HW)
            split["pair"] = [rows[rows < pairs] for rows in split["latent"]]
        for key, tensor in expected.items():
            if key not in split:
                assert all(torch.equal(tensor, one[key]) for one in actual), key
                continue
            assert sorted(torch.cat(split[key]).tolist()) == list(range(len(tensor))), key
            for rows, one in zip(split[key], actual, strict=True):
                assert torch.equal(tensor[rows], one[key]), key


# Latents


def test_latents_come_with_the_images_they_belong_to():
    sources = latent_sources()
    id_images, id_latents, ood = (source.data for source in sources)
    for batch in epoch_batches(sources, Optimisation(batch=8, crop_padding=0, flip=False), 0, 0):
        assert len(batch.images_B3HW) == len(batch.row_B) == 8
        assert len(batch.y_B) == len(batch.weight_B) == 8 + 4
        assert len(batch.latents.latent_LFHW) == 4 + 4
        pairs = batch.row_B[-4:]
        assert torch.equal(batch.latents.pair_K3HW, id_images.batch(pairs))
        assert torch.equal(batch.latents.latent_LFHW[:4], id_latents.batch(pairs))
        assert torch.equal(batch.y_B[8:], id_images.labels[pairs])
        for latent, near, vector in zip(
            batch.latents.latent_LFHW[4:], batch.near_O, batch.vector_OD, strict=True
        ):
            m = (ood.batch(torch.arange(6)) == latent).flatten(1).all(1).nonzero().item()
            assert ood.labels[m] == near
            assert torch.equal(sources[2].vectors[m], vector)


def test_latents_flip_with_their_images():
    sources = latent_sources()
    flips = []
    for batch in epoch_batches(sources, Optimisation(batch=8, crop_padding=0), 0, 0):
        rows = batch.row_B[-4:]
        unflipped = (batch.latents.pair_K3HW == sources[0].data.batch(rows)).flatten(1).all(1)
        latent_too = (batch.latents.latent_LFHW[:4] == sources[1].data.batch(rows)).flatten(1).all(1)
        assert torch.equal(unflipped, latent_too)
        flips += unflipped.tolist()
    assert len(set(flips)) == 2


def test_previews_of_known_latents_keep_pose_and_tone():
    (batch, *_) = epoch_batches(
        latent_sources(outlier_aug_prob=1.0), Optimisation(batch=8, crop_padding=0, flip=False), 0, 0
    )
    previews = pixels(8, 32)
    shown = batch.latents.augment(previews)
    assert torch.equal(shown[:4], previews[:4])
    assert (shown[4:] != previews[4:]).flatten(1).any(1).all()


def test_outliers_are_mixed_with_known_latents():
    plain, mixed = latent_sources(), latent_sources(min_weight=0.4)
    a, b = (
        next(epoch_batches(sources, Optimisation(batch=8, flip=False), 0, 0)).latents.latent_LFHW
        for sources in (plain, mixed)
    )
    assert torch.equal(a[:4], b[:4]), "known ones stay"
    for ood, mixture in zip(a[4:], b[4:], strict=True):
        weights = []
        for latent in mixed[1].data.batch(torch.arange(24)):
            d = (ood - latent).flatten()
            weight = (d @ (mixture - latent).flatten()) / (d @ d)
            if torch.allclose(weight * ood + (1 - weight) * latent, mixture, atol=1e-3):
                weights.append(weight.item())
        assert len(weights) == 1
        assert 0.4 <= weights[0] <= 1


def test_images_as_shown_are_drawn_once_each_by_seed_and_row():
    data = images(12)
    source = outliers(data, grayscale_prob=0.5, outlier_aug_prob=0.5)
    shown, other = as_shown(source, 0), as_shown(source, 1)
    whole = shown.batch(range(12))
    assert torch.equal(whole, torch.cat([shown.batch([i]) for i in range(12)]))
    assert torch.equal(whole[[7, 2]], shown.batch([7, 2]))
    assert not torch.equal(whole, other.batch(range(12)))
    assert not torch.equal(whole, data.batch(range(12)))
    assert torch.equal(as_shown(outliers(data), 0).batch(range(12)), data.batch(range(12)))
    assert shown.identity() != data.identity(), "a cache must tell them apart"
    assert torch.equal(shown.labels, data.labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("config", [Optimisation(batch=8), Optimisation(batch=8, min_area=0.3)])
def test_on_a_gpu_batches_are_the_same_but_for_rounding(config):
    outlier = replace(outliers(images(16)), outlier_aug_prob=0.7, soften=0.5, policy=augmix)
    sources, device = [known(images(16)), outlier], torch.device("cuda")
    pairs = zip(
        epoch_batches(sources, config, 0, 0), epoch_batches(sources, config, 0, 0, device=device), strict=True
    )
    for here, there in pairs:
        assert there.images_B3HW.device.type == "cuda"
        difference = (here.images_B3HW.int() - there.images_B3HW.cpu().int()).abs()
        assert difference.max() <= 1
        assert torch.equal(here.y_B, there.y_B.cpu())
