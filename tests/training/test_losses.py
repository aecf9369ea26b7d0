"""Losses on logits and energies: their formulas, and above all their direction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import Sizes, Step
from oodream.models.classifier import Classifier, load_classifier
from oodream.models.factory import backbone
from oodream.models.inference import head_of
from oodream.training.losses.energy_logistic import EnergyLogistic
from tests.helpers.training import built, output


def step(
    id: torch.Tensor,
    y: torch.Tensor,
    ood: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    names: torch.Tensor | None = None,
) -> Step:
    weight = torch.ones(len(y)) if weight is None else weight
    if ood is None:
        return Step(id=output(id), y_B=y, weight_B=weight)
    names = torch.zeros(len(ood), dtype=torch.long) if names is None else names
    return Step(id=output(id), y_B=y, weight_B=weight, ood=output(ood), name_O=names)


def test_equals_the_papers_formula():
    g = torch.Generator().manual_seed(0)
    id, ood, y = (
        torch.randn(6, 4, generator=g),
        torch.randn(9, 4, generator=g),
        torch.tensor([0, 1, 2, 3, 0, 1]),
    )
    loss = EnergyLogistic(beta=0.7)
    with torch.no_grad():
        loss.slope.fill_(0.3)
        loss.offset.fill_(-0.2)
    terms = loss(step(id, y, ood))
    slope = np.log1p(np.exp(0.3))

    def phi(logits):
        return slope * np.log(np.exp(logits.numpy().astype(float)).sum(1)) - 0.2

    p = np.exp(id.numpy()) / np.exp(id.numpy()).sum(1, keepdims=True)
    ce = -np.log(p[np.arange(6), y]).mean()
    energy = 0.5 * (-np.log(1 / (1 + np.exp(-phi(id)))).mean() - np.log(1 / (1 + np.exp(phi(ood)))).mean())
    assert terms.total.item() == pytest.approx(ce + 0.7 * energy, rel=1e-5)
    assert terms.parts["energy"].item() == pytest.approx(energy, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", [-1.0, 0.5])
def test_outliers_end_with_the_lower_logsumexp(seed, start):
    """Whatever the start; a free slope ends upside down for some."""
    g = torch.Generator().manual_seed(seed)
    x_id, x_ood = torch.randn(64, 8, generator=g) + 1, torch.randn(64, 8, generator=g) - 1
    y = x_id[:, :3].argmax(1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    loss = EnergyLogistic()
    with torch.no_grad():
        loss.slope.fill_(start)
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        loss(step(model(x_id), y, model(x_ood))).total.backward()
        optimizer.step()
    assert model(x_id).logsumexp(1).mean() > model(x_ood).logsumexp(1).mean() + 1


def published_phi(loss: EnergyLogistic, logits: torch.Tensor) -> np.ndarray:
    """The two outputs (n, 2) for logsumexp, unknown and known, by hand."""
    x = np.log(np.exp(logits.double().numpy()).sum(1))[:, None]
    *hidden, last = [(w.weight.detach().numpy(), w.bias.detach().numpy()) for w in loss.free[::2]]
    for weight, bias in hidden:
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ last[0].T + last[1]


@pytest.mark.parametrize(("phi", "widths"), [("linear", [1, 2]), ("network", [1, 512, 2])])
def test_a_published_phi_is_a_cross_entropy_of_two_outputs(phi, widths, tmp_path):
    """As train_ood_det_*.py has it; with as many outliers as ID images the joint mean is ours."""
    g = torch.Generator().manual_seed(0)
    id, ood, y = 2 * torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g), torch.arange(6) % 4
    loss = built("energy_logistic", beta=2.5, phi=phi)
    assert [loss.free[0].in_features, *(layer.out_features for layer in loss.free[::2])] == widths
    outputs = np.concatenate([published_phi(loss, id), published_phi(loss, ood)])
    labels = np.repeat([1, 0], 6)
    log_p = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    terms = loss(step(id, y, ood))
    assert terms.parts["energy"].item() == pytest.approx(-log_p[np.arange(12), labels].mean(), rel=1e-5)
    expected = F.cross_entropy(id, y).item() + 2.5 * -log_p[np.arange(12), labels].mean()
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)
    terms.total.backward()
    assert all(p.grad is not None for p in loss.parameters())

    told = {"backbone": "resnet8", "loss": "energy_logistic", "loss_options": {"phi": phi}}
    with seeded(0, "test"):
        network = backbone("resnet8", 4)
    parts = {"network": network, "loss": loss, "names": tuple("abcd"), "size": 16, "threshold": 0.0}
    Classifier(**parts, settings=told).save(tmp_path)
    torch.testing.assert_close(load_classifier(tmp_path).loss.phi(id), loss.phi(id))


@pytest.mark.parametrize("phi", ["linear", "network"])
def test_a_published_phi_is_drawn_by_the_trainings_seed(phi):
    torch.manual_seed(1)
    first = built("energy_logistic", phi=phi).state_dict()
    torch.manual_seed(2)
    second = built("energy_logistic", phi=phi).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_no_other_phi():
    with pytest.raises(ValueError, match="phi is monotone, linear, network, not 'cubic'"):
        make("losses", "energy_logistic", phi="cubic")


def test_weights_weigh_rows_of_the_cross_entropy():
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    doubled = make("losses", "cross_entropy")(
        step(logits, y, weight=torch.tensor([1.0, 1.0, 2.0, 0.0]))
    ).total
    repeated = F.cross_entropy(logits[[0, 1, 2, 2]], y[[0, 1, 2, 2]])
    assert doubled.item() == pytest.approx(repeated.item(), rel=1e-6)


def test_weighted_energy_is_learned_stored_and_scored(tmp_path):
    """Class weights begin at one, change phi, and come back from a classifier's folder to its head."""
    logits = 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    plain, loss = make("losses", "energy_logistic"), make("losses", "energy_logistic", weighted=True)
    loss.build(Sizes(features=128, classes=4))
    torch.testing.assert_close(loss.phi(logits), plain.phi(logits))
    with torch.no_grad():
        loss.log_energy_C.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
    weights = torch.tensor([0.5, -1.0, 0.0, 2.0]).exp()
    expected = F.softplus(loss.slope) * (weights * logits.exp()).sum(1).log() + loss.offset
    torch.testing.assert_close(loss.phi(logits), expected)
    loss.phi(logits).sum().backward()
    assert (loss.log_energy_C.grad != 0).all()

    told = {"backbone": "resnet8", "loss": "energy_logistic", "loss_options": {"weighted": True}}
    with seeded(0, "test"):
        network = backbone("resnet8", 4)
    Classifier(network=network, loss=loss, names=tuple("abcd"), size=16, threshold=0.0, settings=told).save(
        tmp_path
    )
    found = load_classifier(tmp_path)
    head = head_of(found.network, found.loss)
    torch.testing.assert_close(head.energy_C, weights)
    x = output(logits)
    scores = make("detectors", "weighted_energy").fit(x, torch.zeros(6).long(), head).score(x)
    torch.testing.assert_close(scores, -(weights.double() * logits.double().exp()).sum(1).log())


def test_outlier_exposure_asks_for_equal_probabilities():
    logits, y, ood = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.randn(5, 3)
    p = ood.double().softmax(1).numpy()
    expected = F.cross_entropy(logits, y).item() + 0.5 * -np.log(p).mean()
    assert make("losses", "outlier_exposure")(step(logits, y, ood)).total.item() == pytest.approx(
        expected, rel=1e-6
    )
    flat = make("losses", "outlier_exposure", weight=1.0)(step(logits, y, torch.zeros(2, 3))).parts["uniform"]
    assert flat.item() == pytest.approx(np.log(3))


def test_an_extra_class_is_cross_entropy_over_one_class_more():
    logits, y, ood = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.randn(5, 3)
    loss = make("losses", "extra_class")
    loss.build(Sizes(features=3))
    with torch.no_grad():
        known, unknown = (torch.cat([x, x @ loss.extra.weight.T + loss.extra.bias], 1) for x in (logits, ood))
    expected = F.cross_entropy(known, y) + F.cross_entropy(unknown, torch.full((5,), 3))
    assert loss(step(logits, y, ood)).total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_named_outliers_have_a_class_for_each_name():
    logits, y, ood = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.randn(5, 3)
    names = torch.tensor([0, 3, 1, 3, 2])
    loss = make("losses", "extra_class", named=True)
    loss.build(Sizes(features=3, names=4))
    weight, bias = (x.detach().double().numpy() for x in loss.extra.parameters())

    def cross_entropy(x: torch.Tensor, target: torch.Tensor) -> float:
        f = np.concatenate([x.double().numpy(), x.double().numpy() @ weight.T + bias], axis=1)
        p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
        return float(-np.log(p[range(len(p)), target.numpy()]).mean())

    terms = loss(step(logits, y, ood, names=names))
    assert terms.parts["ce"].item() == pytest.approx(cross_entropy(logits, y), rel=1e-5)
    assert terms.parts["outliers"].item() == pytest.approx(cross_entropy(ood, 3 + names), rel=1e-5)
    assert terms.total.item() == pytest.approx(sum(x.item() for x in terms.parts.values()), rel=1e-6)
