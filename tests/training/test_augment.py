"""How images are shown: shifts, flips and crops of known ones, poses and tones of outliers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from oodream.config import Optimisation
from oodream.data.images import from_array
from oodream.training.augment import (
    MAX_GAIN,
    MAX_GRAIN,
    MAX_OFFSET,
    MAX_SCALE,
    MAX_SHIFT,
    MAX_STRETCH,
    SHARPEST,
    SOFTEST,
    Variation,
    augment,
    gray_fraction,
    grayscale,
    recolored,
    resized_crop,
    soften,
    vary,
)
from tests.helpers.training import pixels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_grayscale_is_pillows():
    x = pixels(3)
    for ours, image in zip(grayscale(x), x, strict=True):
        theirs = torch.from_numpy(
            np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")).copy()
        )
        assert (ours.int() - theirs.int()).abs().max() <= 1
        assert (ours == ours[:1]).all()


def test_augment_shifts_and_flips_and_nothing_else():
    x = pixels(8)
    assert torch.equal(augment(x, Optimisation(crop_padding=0, flip=False), torch.Generator()), x)
    moved = augment(x, Optimisation(crop_padding=2, flip=False), torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    for before, after in zip(x, moved, strict=True):
        assert any(
            torch.equal(before[:, 2 + dy : 14 + dy, 2 + dx : 14 + dx], after[:, 2:14, 2:14])
            for dy in range(-2, 3)
            for dx in range(-2, 3)
        )


def test_resized_crops_lie_inside_and_fill_the_image():
    ramp = torch.arange(64, dtype=torch.uint8).expand(200, 3, 64, 64)  # pixel value = column
    cut = resized_crop(ramp, 0.25, torch.Generator().manual_seed(0)).float()
    width = cut[:, 0, 0, -1] - cut[:, 0, 0, 0]
    assert cut.shape == ramp.shape
    assert (width > 64 * 0.5 * 0.8 - 3).all()
    assert width.max() <= 63
    assert width.std() > 3
    assert (cut.diff(dim=3) >= 0).all()
    assert torch.equal(
        augment(ramp, Optimisation(min_area=0.25, flip=False), torch.Generator().manual_seed(0)),
        cut.to(torch.uint8),
    )
    whole = resized_crop(ramp, 1.0, torch.Generator().manual_seed(0))
    assert (whole[:, 0, 0, -1].float() - whole[:, 0, 0, 0] > 50).all()


def test_softening_is_scipys_blur_with_grain(monkeypatch):
    """Without grain each image is a mixture of itself and scipy's blur, in a share within the limits."""
    monkeypatch.setattr("oodream.training.augment.MAX_GRAIN", 0.0)
    x = pixels(200)
    softened = soften(x, 1.0, seeded()).double()
    blurred = x.numpy().astype(float)
    for axis in (2, 3):
        blurred = ndimage.correlate1d(blurred, np.array([1, 4, 6, 4, 1]) / 16, axis=axis, mode="nearest")
    away = torch.from_numpy(blurred) - x
    inside = (softened > 0) & (softened < 255)
    weight_B = ((softened - x) * away * inside).sum((1, 2, 3)) / (away**2 * inside).sum((1, 2, 3))
    mixtures = x + weight_B[:, None, None, None] * away
    assert ((mixtures - softened) * inside).abs().max() < 1.5
    assert weight_B.min() > SHARPEST - 0.02
    assert weight_B.max() < SOFTEST + 0.02
    assert (weight_B < 0).double().mean() == pytest.approx(1 / 3, abs=0.1)


def test_grain_is_gray_and_within_its_limit():
    flat = torch.full((300, 3, 16, 16), 128, dtype=torch.uint8)
    grain = soften(flat, 1.0, seeded()).double() - 128
    assert (grain == grain[:, :1]).all()
    assert grain[:, 0].flatten(1).std(1).max() < 1.2 * MAX_GRAIN
    assert grain.std() == pytest.approx(MAX_GRAIN / 3**0.5, rel=0.1)


def test_images_are_softened_with_the_given_probability_alone():
    x = pixels(400)
    changed = (soften(x, 0.25, seeded()) != x).flatten(1).any(1).double().mean()
    assert changed == pytest.approx(0.25, abs=0.08)
    assert torch.equal(soften(x, 0.0, seeded()), x)


def still(n: int, **changed: torch.Tensor) -> Variation:
    """A variation that changes nothing but what is given."""
    none = torch.zeros(n, dtype=torch.bool)
    calm = {"pose_B23": torch.eye(2, 3).repeat(n, 1, 1), "gain_B": torch.ones(n), "offset_B": torch.zeros(n)}
    return Variation(**{"gray_B": none, "moved_B": none, "toned_B": none, **calm, **changed})


def test_a_pose_of_a_quarter_turn_is_one():
    x, every = pixels(4), torch.ones(4, dtype=torch.bool)
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).repeat(4, 1, 1)
    assert torch.equal(still(4)(x), x)
    assert torch.equal(still(4, moved_B=every)(x), x)
    assert torch.equal(still(4, moved_B=every, pose_B23=turn)(x), x.rot90(1, (2, 3)))
    assert torch.equal(still(4, pose_B23=turn)(x), x), "only where it is said so"


def test_a_pose_is_scipys_affine_transform():
    """The same map in pixels: scipy's coordinates are rows, then columns, from 0 at a pixel's centre."""
    size, x = 16, pixels(6)
    shown = vary(torch.zeros(6, dtype=torch.bool), 1.0, seeded())
    moved = still(6, moved_B=shown.moved_B, pose_B23=shown.pose_B23)(x)
    for before, after, pose in zip(x.numpy(), moved.numpy(), shown.pose_B23.double().numpy(), strict=True):
        matrix, away = pose[::-1, [1, 0]], pose[::-1, 2]
        middle = (size - 1) / 2
        offset = middle - matrix @ [middle, middle] + away * size / 2
        for ours, plane in zip(after, before, strict=True):
            theirs = ndimage.affine_transform(plane.astype(float), matrix, offset, order=1, mode="reflect")
            assert np.abs(ours - theirs).max() <= 1


def test_a_tone_is_numpys():
    x, every = pixels(5), torch.ones(5, dtype=torch.bool)
    gain, offset = torch.tensor([1.0, 2.0, -1.0, 0.4, -3.0]), torch.tensor([0.0, 10.0, 0.0, -80.0, 33.0])
    theirs = np.clip(
        127.5 + gain.numpy()[:, None, None, None] * (x.numpy() - 127.5) + offset.numpy()[:, None, None, None],
        0,
        255,
    )
    toned = still(5, toned_B=every, gain_B=gain, offset_B=offset)(x)
    assert np.abs(toned.numpy() - theirs).max() <= 0.501  # rounding
    assert torch.equal(toned[2], 255 - x[2])
    assert torch.equal(still(5, gain_B=gain, offset_B=offset)(x), x), "only where it is said so"


def test_variations_are_as_many_and_as_strong_as_said():
    n = 4000
    shown = vary(torch.zeros(n, dtype=torch.bool), 0.3, seeded(), known=1000)
    assert not shown.moved_B[:1000].any()
    assert not shown.toned_B[:1000].any()
    for chosen in (shown.moved_B[1000:], shown.toned_B[1000:]):
        assert chosen.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert (shown.moved_B & shown.toned_B)[1000:].float().mean().item() == pytest.approx(0.09, abs=0.03), (
        "independently"
    )
    wide = torch.linalg.svdvals(shown.pose_B23[:, :, :2])
    assert wide.min() >= 1 / (MAX_SCALE * MAX_STRETCH) - 1e-4
    assert wide.max() <= MAX_SCALE * MAX_STRETCH + 1e-4
    assert (torch.linalg.det(shown.pose_B23[:, :, :2]) > 0).all(), "turned, not mirrored"
    assert shown.pose_B23[:, :, 2].abs().max() <= MAX_SHIFT
    assert shown.offset_B.abs().max() <= MAX_OFFSET
    assert shown.gain_B.abs().min() >= 1 / MAX_GAIN - 1e-6
    assert shown.gain_B.abs().max() <= MAX_GAIN + 1e-6
    assert (shown.gain_B < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_recolored_images_lie_between_two_colours_by_their_luma():
    x = pixels(5)
    shown = recolored(x, seeded())
    luma = grayscale(x)[:, 0].double() / 255
    for weight, image in zip(luma, shown.double(), strict=True):
        design = torch.stack([1 - weight.flatten(), weight.flatten()], 1)
        ends, residual = np.linalg.lstsq(design.numpy(), image.flatten(1).T.numpy(), rcond=None)[:2]
        assert np.sqrt(residual / weight.numel()).max() < 0.5, "rounding alone"
        assert ends.min() >= -1
        assert ends.max() <= 256
        assert np.abs(ends[0] - ends[1]).max() > 10


def test_the_gray_fraction_is_that_of_the_first_images():
    x = pixels(10)
    x[:3] = grayscale(x[:3])
    data = from_array("x", x, torch.zeros(10), "a")
    assert gray_fraction(data) == pytest.approx(0.3)
    assert gray_fraction(data, 4) == pytest.approx(0.75)
