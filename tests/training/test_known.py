"""Outliers made of known images: what is in each, and that nothing else is read."""

from __future__ import annotations

import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from oodream.config import RegularizeConfig
from oodream.core.distributed import Shard
from oodream.core.registry import make
from oodream.core.seeding import generator
from oodream.data.images import Images, from_array
from oodream.training.attribution import PERTURBATIONS, SCALE, SHARE, attributed
from oodream.training.batches import epoch_batches
from oodream.training.known import KEEP_CLASS, TRANSFORMS, partners
from oodream.training.loop import objective_of
from oodream.training.policies import POLICIES
from oodream.training.sources import Source, known_in_place
from tests.helpers.training import CPU, UNMOVED, images, known, latent_sources, output

ROWS = torch.arange(24)
PLAIN = RegularizeConfig(outliers="known", outlier_aug_prob=0.0, ratio=0.5)


def flat(classes: int = 4, n: int = 24, size: int = 16) -> Images:
    """Every image of one gray level: 10 for each step of the class, and the row."""
    labels = torch.arange(n) % classes
    levels = (60 * labels + torch.arange(n)).to(torch.uint8)
    return from_array("x", levels[:, None, None, None].expand(n, 3, size, size), labels, "abcdefgh"[:classes])


def made(name: str, data: Images, seed: int = 0) -> torch.Tensor:
    result = TRANSFORMS[name](data, ROWS, generator(seed, "known"))
    assert (result.shape, result.dtype) == ((24, 3, 16, 16), torch.uint8)
    return result


def test_the_table_holds_what_the_option_offers():
    offered = typing.get_args(typing.get_type_hints(RegularizeConfig)["known_transform"])
    assert offered == ("varied", *TRANSFORMS, *PERTURBATIONS)


def test_partners_are_of_all_other_classes_alike():
    data, rows = flat(classes=3, n=30), torch.arange(30).repeat(600)
    found = partners(data, rows, generator(0, "partners"))
    assert not (data.labels[found] == data.labels[rows]).any()
    of_first = torch.bincount(found[rows == 0], minlength=30)
    others = data.labels != data.labels[0]
    assert of_first[others].min() > 0.3 * 600 / 20
    assert of_first[~others].sum() == 0
    uneven = replace(data, labels=torch.tensor([0] * 28 + [2] * 2))
    found = partners(uneven, torch.tensor([0, 28, 29] * 50), generator(0, "partners"))
    assert (uneven.labels[found].view(50, 3) == torch.tensor([2, 0, 0])).all()
    with pytest.raises(ValueError, match="there is no other class"):
        partners(replace(data, labels=torch.zeros(30, dtype=torch.int64)), rows, generator(0, "x"))


def test_mixtures_are_of_two_classes_and_neither_is_faint():
    data = flat(classes=2)
    levels = made("mixed", data)[:, 0, 0, 0].float()
    partner = data.batch(partners(data, ROWS, replayed(24)))[:, 0, 0, 0].float()
    own = data.batch(ROWS)[:, 0, 0, 0].float()
    weight = (levels - partner) / (own - partner)
    assert weight.min() > 1 / 3 - 0.02
    assert weight.max() < 2 / 3 + 0.02
    assert weight.std() > 0.05


def replayed(n: int) -> torch.Generator:
    """The generator as it is once the weights of `n` mixtures are drawn."""
    g = generator(0, "known")
    torch.rand(n, generator=g)
    return g


def test_a_cut_image_holds_one_box_of_another_class():
    data = flat()
    result, own = made("cut", data)[:, 0], data.batch(ROWS)[:, 0]
    for x, level, label in zip(result, own[:, 0, 0], data.labels, strict=True):
        inside = x != level
        (other,) = x[inside].unique().tolist()
        assert data.labels[(data.batch(ROWS)[:, 0, 0, 0] == other).nonzero()[0, 0]] != label
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        height, width = len(rows), len(columns)
        assert inside.sum() == height * width == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert height == width
        assert 0.25 < inside.float().mean() < 0.75
    assert len({tuple(x.nonzero()[0].tolist()) for x in result != own}) > 3, "in many places"


def test_tiles_are_shuffled_and_negatives_are_negative():
    data = images(24)
    shuffled = made("shuffled", data)
    assert torch.equal(shuffled.flatten(2).sort().values, data.batch(ROWS).flatten(2).sort().values)
    assert not (shuffled == data.batch(ROWS)).flatten(1).all(1).any()
    assert torch.equal(made("inverted", data), 255 - data.batch(ROWS))


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in POLICIES])
def test_batches_show_them_anew_and_as_imagined_ones(name):
    data = images(32)
    source = known_in_place(data, 24, "outlier", replace(PLAIN, known_transform=name), data)
    assert source.outlier_aug_prob == 0
    assert source.ratio == 0.5
    (first, _), (again, _), (later, _) = (
        list(epoch_batches([known(data), source], UNMOVED, 0, epoch)) for epoch in (0, 0, 1)
    )
    assert torch.equal(first.images_B3HW, again.images_B3HW)
    assert len(first.images_B3HW) == 24
    assert len(first.y_B) == 16, "they have no label that is learned"
    plain = known_in_place(data, 24, "outlier", PLAIN, data)
    (untouched, _) = epoch_batches([known(data), replace(plain, outlier_aug_prob=0.0)], UNMOVED, 0, 0)
    assert torch.equal(first.images_B3HW[:16], untouched.images_B3HW[:16]), "known images are as they were"
    assert not (first.images_B3HW[16:] == untouched.images_B3HW[16:]).flatten(1).all(1).any()
    assert not torch.equal(first.images_B3HW[16:], later.images_B3HW[16:])


@pytest.mark.parametrize("name", KEEP_CLASS)
def test_inliers_show_their_class_and_teach_it(name):
    data = images(32)
    config = replace(PLAIN, known_transform=name, inlier_weight=0.25)
    source = known_in_place(data, 24, "inlier", config, data)
    assert (source.role, source.ratio, source.weight) == ("inlier", 0.5, 0.25)
    (first, _), (later, _) = (
        list(epoch_batches([known(data), source], UNMOVED, 0, epoch)) for epoch in (0, 1)
    )
    assert (len(first.images_B3HW), len(first.y_B)) == (24, 24), "they have a label that is learned"
    assert first.weight_B.tolist() == [1.0] * 16 + [0.25] * 8
    plain = Source(role="inlier", data=source.data, ratio=0.5)
    (untouched, _) = epoch_batches([known(data), plain], UNMOVED, 0, 0)
    assert torch.equal(first.y_B, untouched.y_B), "each that of its image"
    assert torch.equal(first.images_B3HW[:16], untouched.images_B3HW[:16]), "known images are as they were"
    changed = (first.images_B3HW[16:] != untouched.images_B3HW[16:]).flatten(1).any(1)
    assert changed.sum() >= 3, "a policy leaves some as they are"
    assert not torch.equal(first.images_B3HW[16:], later.images_B3HW[16:])


@pytest.mark.parametrize("name", ["mixed", "augmix"])
def test_processes_make_what_one_would(name):
    data = images(32)
    source = known_in_place(data, 24, "outlier", replace(PLAIN, known_transform=name), data)
    (whole, _) = epoch_batches([known(data), source], UNMOVED, 0, 0)
    parts = [next(iter(epoch_batches([known(data), source], UNMOVED, 0, 0, Shard(i, 2)))) for i in range(2)]
    for i, part in enumerate(parts):
        assert torch.equal(part.images_B3HW[8:], whole.images_B3HW[16:][i::2])


def test_latents_can_be_varied_alone():
    data, latents, _ = latent_sources()
    with pytest.raises(ValueError, match="can be varied, not cut"):
        known_in_place(latents.data, 5, "outlier", replace(PLAIN, known_transform="cut"), data.data)


class Linear(nn.Module):
    """Logits that are linear in the pixels, so that the gradient is the weight; training mode has state."""

    def __init__(self) -> None:
        super().__init__()
        g = generator(0, "linear")
        self.weight_CP = nn.Parameter(2e-4 * torch.randn(4, 3 * 16 * 16, generator=g))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        logits = self.norm(x.flatten(1).float() @ self.weight_CP.T)
        return output(logits)


def test_attributed_outliers_add_the_strongest_tenth_of_the_logits_gradient():
    data, model = flat(), Linear().train()
    model.norm.running_var.fill_(4.0)
    pixels = data.batch(ROWS)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    result = attributed(model, pixels, data.labels, 20.0)
    gradient = model.weight_CP.detach().double().numpy()[data.labels.numpy()] / 2
    x = pixels.flatten(1).double().numpy()
    n = int(SHARE * x.shape[1])
    expected = x.copy()
    for row, strength in enumerate(gradient):
        top = np.argsort(-np.abs(strength))[:n]
        expected[row, top] += 20 * SCALE**2 * strength[top]
    np.testing.assert_allclose(result.flatten(1).numpy(), expected, atol=0.01)
    assert (result.flatten(1).numpy() != x).mean() == n / x.shape[1]
    assert model.training
    assert model.weight_CP.grad is None
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


def test_the_loop_shows_the_network_what_it_made_of_known_images():
    """Known rows stay; the outliers' are the perturbed ones, of their own classes."""
    shown: list[torch.Tensor] = []

    class Watched(Linear):
        def forward(self, x):
            shown.append(x.detach().clone())
            return super().forward(x)

    data = flat(n=32)
    source = known_in_place(
        data, 24, "outlier", replace(PLAIN, known_transform="attributed", known_step=30.0), data
    )
    model, loss = Watched(), make("losses", "outlier_exposure")
    objective = objective_of(model, loss, [known(data), source], UNMOVED, CPU, None, None).train()
    (batch, _) = epoch_batches([known(data), source], UNMOVED, 0, 0)
    objective(batch)
    asked, trained = shown
    assert torch.equal(asked.to(torch.uint8), batch.images_B3HW[16:])
    assert torch.equal(trained[:16], batch.images_B3HW[:16])
    assert torch.equal(trained[16:], attributed(Linear(), batch.images_B3HW[16:], batch.near_O, 30.0))
    assert not torch.equal(trained[16:], batch.images_B3HW[16:])
