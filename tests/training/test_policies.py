"""AugMix, RandAugment and AutoAugment: what each operation does, and that images and draws are one another's
own.
"""

from __future__ import annotations

import typing
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from oodream.config import TrainConfig
from oodream.core.seeding import generator
from oodream.training import policies
from oodream.training.augment import Share
from oodream.training.batches import epoch_batches
from oodream.training.policies import (
    AUGMIX,
    AUTOAUGMENT,
    OPERATIONS,
    POLICIES,
    RANDAUGMENT,
    SHIFT,
    augmented,
    augmix,
    autoaugment,
    randaugment,
)
from oodream.training.sources import Source, as_trained
from tests.helpers.training import UNMOVED, images, known, pixels

G = np.random.default_rng(0)
NOISE = G.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def done(name: str, strength: float, pixels: np.ndarray = NOISE) -> np.ndarray:
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), strength)).astype(int)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_an_image_of_the_same_form(name):
    for strength in (0.0, 0.3, 1.0):
        assert done(name, strength).shape == NOISE.shape


@pytest.mark.parametrize(
    "name", [name for name in OPERATIONS if name not in ("autocontrast", "equalize", "invert")]
)
def test_of_no_strength_it_changes_nothing(name):
    np.testing.assert_array_equal(done(name, 0.0), np.where(NOISE == 255, 255 * (name != "solarize"), NOISE))


def test_tones():
    dim = NOISE // 4 + 50
    low, high = dim.min((0, 1)), dim.max((0, 1))
    np.testing.assert_allclose(done("autocontrast", 0, dim), 255.0 * (dim - low) / (high - low), atol=1.01)
    for before, after in zip(
        np.moveaxis(dim, 2, 0), np.moveaxis(done("equalize", 0, dim), 2, 0), strict=True
    ):
        assert (np.diff(after.flat[before.argsort(axis=None)]) >= 0).all(), "the order of tones stays"
        assert (after.min(), after.max()) == (0, 255)
    np.testing.assert_array_equal(done("invert", 0), 255 - NOISE.astype(int))
    np.testing.assert_array_equal(done("posterize", 1.0), NOISE // 16 * 16)
    np.testing.assert_array_equal(done("posterize", 0.3), NOISE // 2 * 2)
    np.testing.assert_array_equal(
        done("solarize", 0.4), np.where(NOISE < 153, NOISE, 255 - NOISE.astype(int))
    )
    np.testing.assert_allclose(done("brightness", -1.0), 0.1 * NOISE, atol=1.01)
    gray = done("color", -1.0)
    assert np.ptp(gray, axis=2).max() <= 0.1 * 255 + 1
    assert done("contrast", 1.0).std() > NOISE.std() > done("contrast", -1.0).std() * 5


def test_places():
    shift = round(SHIFT * 0.5 * 32)
    moved = done("translate_x", 0.5)
    np.testing.assert_array_equal(moved[:, :-shift], NOISE[:, shift:])
    assert not moved[:, -shift:].any(), "what comes in is black"
    np.testing.assert_array_equal(
        done("translate_y", -0.5), np.swapaxes(done("translate_x", -0.5, np.swapaxes(NOISE, 0, 1)), 0, 1)
    )
    np.testing.assert_array_equal(
        done("shear_y", 0.7), np.swapaxes(done("shear_x", 0.7, np.swapaxes(NOISE, 0, 1)), 0, 1)
    )
    column = np.zeros((33, 33, 3), np.uint8)
    column[:, 16] = 255
    sheared = done("shear_x", 1.0, column)[..., 0].argmax(1)
    np.testing.assert_allclose(sheared[8:24], 16 - 0.3 * np.arange(8, 24), atol=1)
    turned = done("rotate", 1.0, column)[..., 0]
    y, x = np.nonzero(turned > 100)
    slope = np.polyfit(y - 16, x - 16, 1)[0]
    assert np.degrees(np.arctan(slope)) == pytest.approx(30, abs=2), "anticlockwise"


def test_augmix_is_a_mixture_of_the_image_and_its_chains(monkeypatch):
    """With operations that change nothing it is the image, with black ones the image times its weight."""
    image = Image.fromarray(NOISE)
    monkeypatch.setattr(policies, "OPERATIONS", dict.fromkeys(AUGMIX, lambda image, s: image))
    np.testing.assert_array_equal(np.asarray(augmix(image, Random(0))), NOISE)
    black = lambda image, s: Image.new("RGB", image.size)  # noqa: E731
    monkeypatch.setattr(policies, "OPERATIONS", dict.fromkeys(AUGMIX, black))
    weights = [np.asarray(augmix(image, Random(seed))).sum() / NOISE.sum() for seed in range(400)]
    assert np.histogram(weights, 4, (0, 1))[0] == pytest.approx(100, abs=35), "the image's weight is uniform"


def counted(monkeypatch, policy, turns: int) -> list[list[tuple[str, float]]]:
    """The operations, with their strengths, of each of many images."""
    found: list[list[tuple[str, float]]] = []

    def noted(name):
        def operation(image, s):
            found[-1].append((name, s))
            return image

        return operation

    monkeypatch.setattr(policies, "OPERATIONS", {name: noted(name) for name in OPERATIONS})
    for seed in range(turns):
        found.append([])
        policy(Image.fromarray(NOISE), Random(seed))
    return found


def test_augmix_draws_chains_of_its_nine_operations(monkeypatch):
    found = counted(monkeypatch, augmix, 300)
    assert {name for steps in found for name, _ in steps} == {*AUGMIX}
    assert {len(steps) for steps in found} == {*range(3, 10)}
    strength = [abs(s) for steps in found for name, s in steps if name in ("rotate", "shear_x", "solarize")]
    assert 0.01 < min(strength) < 0.03
    assert 0.28 < max(strength) < 0.3
    assert all(1 < s < 1.3 for steps in found for name, s in steps if name == "posterize")
    assert {np.sign(s) for steps in found for name, s in steps if name == "shear_y"} == {-1, 1}
    assert {np.sign(s) for steps in found for name, s in steps if name == "solarize"} == {1}


def test_randaugment_takes_two_of_fourteen(monkeypatch):
    found = counted(monkeypatch, randaugment, 700)
    assert {len(steps) for steps in found} == {2}
    names = [name for steps in found for name, _ in steps]
    assert {*names} == {*RANDAUGMENT}
    assert len(RANDAUGMENT) == 14
    assert min(map(names.count, RANDAUGMENT)) > 60
    assert {abs(s) for steps in found for _, s in steps} == {0.3}


def test_autoaugment_takes_pairs_of_its_policy(monkeypatch):
    found = counted(monkeypatch, autoaugment, 2500)
    pairs = [tuple(name for name, _, _ in pair) for pair in AUTOAUGMENT]
    assert len(pairs) == 25
    both = {tuple(name for name, _ in steps) for steps in found if len(steps) == 2}
    assert both == {*pairs}
    share = sum(len(steps) for steps in found) / len(found)
    assert share == pytest.approx(sum(p for pair in AUTOAUGMENT for _, p, _ in pair) / 25, abs=0.05)
    strengths = {round(abs(s) * 9) for steps in found for name, s in steps if name == "rotate"}
    assert strengths == {3, 8, 9}


@pytest.mark.parametrize("policy", POLICIES.values())
def test_an_image_s_draws_are_its_own(policy):
    """The same seed gives the same images, some of them alone, too; another seed others."""
    x = pixels(24, size=32)
    first, again, other = (augmented(policy, x, generator(seed, "policy")) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == ((24, 3, 32, 32), torch.uint8)
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).sum() > 12
    mine = torch.tensor([3, 17])
    share = augmented(policy, x[mine], generator(0, "policy"), Share(total=24, rows=mine))
    assert torch.equal(share, first[mine])
    none = augmented(policy, x[:0], generator(0, "policy"), Share(total=24, rows=mine[:0]))
    assert none.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("role", ["reconstructed", "known", "inlier", "outlier"])
def test_training_augments_what_every_image_source_has(role):
    """All else that is drawn stays as it was, so that a batch has the same images."""
    other = Source(role=role, data=images(8, 90), ratio=0.5)
    sources = [known(images(16)), *([] if role == "known" else [other])]
    plain = next(iter(epoch_batches(sources, UNMOVED, 0, 0)))
    config = TrainConfig(augmentation="augmix", soften=0.0)
    batch = next(iter(epoch_batches([as_trained(source, config) for source in sources], UNMOVED, 0, 0)))
    assert torch.equal(batch.y_B, plain.y_B)
    changed_B = (batch.images_B3HW != plain.images_B3HW).flatten(1).any(1)
    assert changed_B.sum() > 0.8 * len(changed_B)
    own, others = (
        (batch.images_B3HW.float() - plain.images_B3HW.roll(by, 0)).abs().mean((1, 2, 3)) for by in (0, 1)
    )
    assert (own < others).sum() > len(others) / 2, "each is its own image, changed"


def test_the_option_offers_what_there_is():
    offered = typing.get_args(typing.get_type_hints(TrainConfig)["augmentation"])
    assert offered == ("none", *POLICIES)
