"""CLUB: its bound against closed forms, whom it pairs, and where its gradients come from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.core.registry import make
from oodream.core.types import Sizes, Step
from oodream.training.losses.club import REDUCTIONS, Gaussian, pairs
from tests.helpers.training import built, gaussians, output, step


class Exact(nn.Module):
    """q(y | x) of the Gaussians, in the shape of `Gaussian`."""

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    bound, unlikelihood = Gaussian.bound, Gaussian.unlikelihood

    def mu(self, x):
        return self.rho * x

    def logvar(self, x):
        return torch.full_like(x, math.log(1 - self.rho**2))


# The estimator


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_the_bound_is_its_closed_form_and_lies_above(rho):
    """With the true q the bound is rho^2 / (1 - rho^2) for each dimension, at least -log(1 - rho^2) / 2."""
    x, y, truth = gaussians(rho, 200_000)
    bound = Exact(rho).bound(x, y).item()
    assert bound == pytest.approx(2 * rho**2 / (1 - rho**2), abs=0.03)
    assert bound >= truth - 0.03


def test_the_bound_without_a_table_equals_the_double_sum():
    x, y, _ = gaussians(0.6, 30)
    q = Exact(0.6)

    def log_q(i, j):
        mu, v = q.mu(x)[i], q.logvar(x)[i].exp()
        return (-0.5 * ((y[j] - mu) ** 2 / v + v.log() + math.log(2 * math.pi))).sum()

    n = len(x)
    true_pairs = sum(log_q(i, i) for i in range(n)) / n
    all_pairs = sum(log_q(i, j) for i in range(n) for j in range(n)) / n**2
    assert q.bound(x, y).item() == pytest.approx((true_pairs - all_pairs).item(), rel=1e-4)
    assert q.unlikelihood(x, y).item() == pytest.approx(-true_pairs.item(), rel=1e-5)


def test_the_references_reductions():
    x = torch.randn(2, 4, 6, 8)
    assert torch.equal(REDUCTIONS["whole"](x), x.flatten(1))
    assert torch.allclose(REDUCTIONS["channel_mean"](x), x.mean(1).flatten(1))
    assert torch.allclose(REDUCTIONS["column"](x), x.mean(1).mean(1))
    assert REDUCTIONS["column"](torch.randn(300, 4, 64, 64)).shape == (300, 64)


# Pairs


def test_images_and_outliers_of_a_class_take_turns():
    y, near = torch.tensor([0, 1, 0, 2, 0, 1, 0]), torch.tensor([1, 0, 1, 1, 0])
    rows, partners = pairs(y, near)
    assert rows.tolist() == [0, 1, 2, 4, 5, 6], "class 2 has no outlier"
    assert partners.tolist() == [1, 0, 4, 1, 2, 4]


def by_hand(loss, told: Step, partners: list[int]) -> tuple[float, float]:
    """CLUB's bound and the negative log-likelihood by a double loop; image i has the outlier partners[i]."""
    with torch.no_grad():
        x = told.vector_OD[partners]
        mu, logvar, y = (t.double().numpy() for t in (loss.q.mu(x), loss.q.logvar(x), told.id.z_BF))
    n = len(y)

    def log_q(i, j):
        return -0.5 * ((y[j] - mu[i]) ** 2 / np.exp(logvar[i]) + logvar[i] + np.log(2 * np.pi)).sum()

    true_pairs = np.mean([log_q(i, i) for i in range(n)])
    return true_pairs - np.mean([log_q(i, j) for i in range(n) for j in range(n)]), -true_pairs


def test_club_is_the_bound_of_its_pairs_and_q_learns_beside_it():
    """Every image has an outlier of its own: a wrong partner gives another number."""
    loss = built("club", of="vectors", weight=0.7, rate=0.05)
    told = step(B=6, O=7, near_O=torch.tensor([2, 0, 1, 1, 0, 2, 0]))
    bound, nll = by_hand(loss, told, [1, 2, 0, 4, 3, 5])
    terms = loss(told)
    assert terms.parts["club"].item() == pytest.approx(bound, rel=1e-4)
    assert terms.parts["club_nll"].item() == pytest.approx(nll, rel=1e-4)
    assert terms.total.item() == pytest.approx(0.7 * bound + 0.05 * nll, rel=1e-4)
    assert by_hand(loss, told, [1] * 6)[0] != pytest.approx(bound, rel=0.1), "the test tells partners apart"


@pytest.mark.parametrize("deep", [False, True])
def test_club_joint_is_the_bound_of_rows_in_order_for_features_and_q(deep):
    loss = built("club_joint", of="vectors", weight=0.7, rate=0.05, deep=deep)
    assert sum(isinstance(layer, nn.Linear) for layer in loss.q.mu) == (4 if deep else 2)
    told = step(B=6, O=4)
    bound, _ = by_hand(loss, told, [0, 1, 2, 3, 0, 1])
    terms = loss(told)
    assert terms.parts["club_joint"].item() == pytest.approx(bound, rel=1e-4)
    assert terms.total.item() == pytest.approx(0.7 * bound + 0.7 * 0.05 * bound, rel=1e-4)
    terms.total.backward()
    gradient = torch.cat([p.grad.flatten() for p in loss.q.parameters()])
    loss.zero_grad()
    loss.q.bound(told.vector_OD[[0, 1, 2, 3, 0, 1]], told.id.z_BF.detach()).backward()
    of_the_bound = torch.cat([p.grad.flatten() for p in loss.q.parameters()])
    torch.testing.assert_close(gradient, 0.7 * 0.05 * of_the_bound)


def test_club_learns_from_an_outlier_of_the_images_class():
    """Features that tell their class's outliers: q finds those pairs informative, and no others."""
    loss = built("club", of="vectors")
    near = torch.arange(12) % 3
    z = F.one_hot(near, 6).float() * 3
    told = step(
        B=12, O=12, near_O=near, vector_OD=F.one_hot(near, 5).float() * 2, id=output(torch.zeros(12, 3), z)
    )
    optimizer = torch.optim.Adam(loss.q.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss(told).parts["club_nll"].backward()
        optimizer.step()
    assert loss(told).parts["club"] > 1
    assert loss(Step(**{**vars(told), "near_O": near.roll(1)})).parts["club"] < 0


# Where gradients come from


def over_pairings(loss, told: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients by ID features: their mean over all cyclic pairings, and their mean size."""
    B = len(told.y_B)
    gradients = []
    for shift in range(B):
        order = (torch.arange(B) + shift) % B
        shifted = {name: getattr(told, name)[order] for name in ("latent_OFHW", "vector_OD", "near_O")}
        ood = output(told.ood.logits_BC[order], told.ood.z_BF[order])
        total = loss(Step(**{**vars(told), **shifted, "ood": ood})).total
        gradients += torch.autograd.grad(total, told.id.z_BF)
    gradients = torch.stack(gradients)
    return gradients.mean(0).norm(), gradients.flatten(1).norm(dim=1).mean()


@pytest.mark.parametrize("of", ["latents", "vectors"])
def test_the_published_codes_gradient_is_zero_on_average(of):
    """Exactly: over all pairings of a batch the positive term's gradient is the negative term's."""
    mean, size = over_pairings(built("club_joint", of=of), step(B=12, O=12))
    assert size > 1e-3
    assert mean < 1e-6 * size + 1e-9


@pytest.mark.parametrize("name", ["micl", "club"])
def test_ours_is_not(name):
    mean, size = over_pairings(built(name), step(B=12, O=12))
    assert mean > 0.3 * size


def test_club_joint_also_leaves_q_where_it_was_on_average():
    told, loss = step(B=12, O=12), built("club_joint")
    gradients = []
    for shift in range(12):
        loss.zero_grad()
        latents = told.latent_OFHW[(torch.arange(12) + shift) % 12]
        loss(Step(**{**vars(told), "latent_OFHW": latents})).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in loss.q.parameters()]))
    gradients = torch.stack(gradients)
    assert gradients.mean(0).norm() < 1e-5 * gradients.norm(dim=1).mean()


def test_clubs_two_steps_do_not_touch_each_other():
    told, loss = step(), built("club", weight=0.5, rate=0.0)
    loss(told).total.backward()
    assert told.id.z_BF.grad.norm() > 0
    assert all(p.grad is None or p.grad.norm() == 0 for p in loss.q.parameters()), "the bound does not move q"
    told, loss = step(), built("club", weight=0.0, rate=1.0)
    loss(told).total.backward()
    assert told.id.z_BF.grad.norm() == 0, "the likelihood does not move features"
    assert any(p.grad.norm() > 0 for p in loss.q.parameters())


def test_what_is_lacking_is_said_before_training():
    for name in ("club", "club_joint"):
        with pytest.raises(ValueError, match=f"{name} needs outliers as latents: .*option of=vectors"):
            make("losses", name).build(Sizes(features=6, text=5))
        with pytest.raises(ValueError, match=f"{name} needs the vectors outliers were imagined from"):
            make("losses", name, of="vectors").build(Sizes(features=6))
        with pytest.raises(ValueError, match=f"{name}: of is latents or vectors, not 'pixels'"):
            make("losses", name, of="pixels")
        with pytest.raises(ValueError, match=f"{name} needs outliers as latents"):
            built(name)(step(latent_OFHW=None))
