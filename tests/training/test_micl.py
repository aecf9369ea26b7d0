"""MICL: InfoNCE of every feature with the vector that its image comes from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from oodream.core.registry import make
from oodream.core.types import Sizes, Step
from oodream.training.losses.micl import info_nce
from tests.helpers.training import built, gaussians, output, step


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
def test_info_nce_bounds_from_below_and_comes_near(rho):
    """With the true density ratio as score: log K minus the loss."""
    x, y, truth = gaussians(rho, 4000, d=1)
    bounds = []
    for part in range(0, 4000, 500):
        a, b = x[part : part + 500], y[part : part + 500]
        ratio = -0.5 * ((b.T - rho * a) ** 2 / (1 - rho**2) - b.T**2) - 0.5 * math.log(1 - rho**2)
        bounds.append(math.log(500) - info_nce(ratio, torch.arange(500)).item())
    assert np.mean(bounds) <= truth + 0.05
    assert np.mean(bounds) >= 0.85 * truth - 0.03


def by_hand(loss, told: Step, temperature: float) -> float:
    """-log softmax of each row's similarity to its own vector, row by row in double precision."""

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    weight, bias = (x.detach().double().numpy() for x in (loss.map.weight, loss.map.bias))
    tokens, vectors, known, unknown = (
        x.detach().double().numpy() for x in (told.tokens_CD, told.vector_OD, told.id.z_BF, told.ood.z_BF)
    )
    rows = [(z, tokens[y]) for z, y in zip(known, told.y_B.tolist(), strict=True)]
    rows += list(zip(unknown, vectors, strict=True))
    losses = []
    for z, positive in rows:
        direction = unit(weight @ z + bias)
        every = [math.exp(direction @ unit(v) / temperature) for v in (*tokens, *vectors)]
        losses.append(-math.log(math.exp(direction @ unit(positive) / temperature) / sum(every)))
    return float(np.mean(losses))


@pytest.mark.parametrize("options", [{}, {"weight": 0.7, "temperature": 0.25}])
def test_the_total_is_the_weighted_contrast_of_every_row_with_its_own_vector(options):
    """Unequal labels, vectors and lengths: a wrong positive, weight or temperature gives another number."""
    weight, temperature = options.get("weight", 0.03), options.get("temperature", 0.1)
    loss = built("micl", **options)
    lengths = torch.tensor([[0.5], [2.0], [1.0], [3.0], [0.2]])
    told = step(B=7, O=5)
    told = Step(
        **{**vars(told), "vector_OD": told.vector_OD * lengths, "y_B": torch.tensor([2, 2, 0, 1, 2, 0, 0])}
    )
    expected = by_hand(loss, told, temperature)
    terms = loss(told)
    assert terms.parts["micl"].item() == pytest.approx(expected, rel=1e-4)
    assert terms.total.item() == pytest.approx(weight * expected, rel=1e-4)


def test_features_are_pulled_to_their_own_vectors():
    loss = built("micl", weight=1.0, temperature=0.2)
    g = torch.Generator().manual_seed(0)
    known, unknown = (torch.randn(n, 6, generator=g).requires_grad_() for n in (12, 8))
    optimizer = torch.optim.Adam([known, unknown, *loss.parameters()], 0.05)
    told = step(B=12, O=8)

    def total():
        return loss(Step(**{**vars(told), "id": output(known), "ood": output(unknown)})).total

    before = total().item()
    for _ in range(150):
        optimizer.zero_grad()
        total().backward()
        optimizer.step()
    assert total() < 0.2 * before
    candidates = torch.cat([told.tokens_CD, told.vector_OD]).T
    assert ((F.normalize(loss.map(known), dim=1) @ candidates).argmax(1) == told.y_B).all()
    assert ((F.normalize(loss.map(unknown), dim=1) @ candidates).argmax(1) == 3 + torch.arange(8)).all()


def test_outliers_without_vectors_are_refused_before_training():
    with pytest.raises(ValueError, match="micl needs the vectors outliers were imagined from"):
        make("losses", "micl").build(Sizes(features=6))
    with pytest.raises(ValueError, match="micl needs outliers and the vectors"):
        built("micl")(step(vector_OD=None))
