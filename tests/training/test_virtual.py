"""Losses that imagine nothing but points of the feature space, or nothing at all: against plain numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from oodream.config import RegularizeConfig, TrainConfig
from oodream.core.registry import make
from oodream.core.seeding import generator, seeded
from oodream.core.types import Head, Step
from oodream.training.losses._virtual import FeatureQueue
from oodream.training.losses.npos import beyond_boundary
from oodream.training.losses.vos import gaussian_tails
from oodream.training.sources import known_in_place
from oodream.training.terms import LossSum
from oodream.training.train import make_loss, train
from tests.helpers.training import CPU, UNMOVED, built, images, known, output, step


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "virtual"))


def cross_entropy(logits: np.ndarray, y: np.ndarray) -> float:
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return float(-np.log(p[np.arange(len(y)), y]).mean())


def pushed(queue: FeatureQueue, z: torch.Tensor, y: list[int]) -> None:
    queue.push(Step(id=output(z), y_B=torch.tensor(y), weight_B=torch.ones(len(y))))


def test_logit_norm_is_cross_entropy_of_logits_of_one_length():
    logits, y = random(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    x = logits.double().numpy()
    expected = cross_entropy(x / (0.5 * np.linalg.norm(x, axis=1, keepdims=True)), y.numpy())
    loss = make("losses", "logit_norm", tau=0.5)
    one = Step(id=output(logits), y_B=y, weight_B=torch.ones(6))
    assert loss(one).total.item() == pytest.approx(expected, rel=1e-5)
    longer = replace(one, id=output(7 * logits))
    assert loss(longer).total.item() == pytest.approx(expected, rel=1e-5), "length says nothing"


@pytest.mark.parametrize("shape", [(3, 6), (6, 3)])
@pytest.mark.parametrize("condition", [False, True])
def test_fever_is_of_the_singular_values_of_the_head(shape, condition):
    weight = random(*shape)
    s = np.sqrt(
        np.linalg.eigvalsh((lambda w: w @ w.T if len(w) < len(w.T) else w.T @ w)(weight.double().numpy()))
    )
    expected = (s[-1] if condition else 1) / s[0]
    loss = make("losses", "fever", weight=0.25, condition=condition)
    terms = loss(step(head=Head(weight_CF=weight, bias_C=torch.zeros(len(weight)))))
    assert terms.parts["fever"].item() == pytest.approx(expected, rel=1e-4)
    assert terms.total.item() == pytest.approx(0.25 * expected, rel=1e-4)


def test_descending_fever_raises_the_least_singular_value():
    weight = random(3, 6).requires_grad_()
    before = np.linalg.svd(weight.detach().numpy(), compute_uv=False)[-1]
    make("losses", "fever")(step(head=Head(weight_CF=weight, bias_C=torch.zeros(3)))).total.backward()
    after = np.linalg.svd((weight - weight.grad).detach().numpy(), compute_uv=False)[-1]
    assert after > before


def test_the_queue_keeps_the_last_features_of_every_class():
    queue = FeatureQueue(3)
    queue.build(classes=3, features=2)
    stream, labels = random(40, 2), (torch.arange(40) * 7 % 5 % 3).tolist()
    expected: dict[int, list[list[float]]] = {0: [], 1: [], 2: []}
    for start in (0, 5, 6, 30):  # batches of 5, 1, 24 (more of a class than there is room for) and 10
        end = {0: 5, 5: 6, 6: 30, 30: 40}[start]
        pushed(queue, stream[start:end], labels[start:end])
        for z, y in zip(stream[start:end].tolist(), labels[start:end], strict=True):
            expected[y].append(z)
        kept = [sorted(zs[-3:]) for zs in expected.values() if len(zs) >= 2]
        assert [sorted(z.tolist()) for z in queue.by_class()] == kept


def test_a_queue_is_read_without_being_built_and_empty_when_cleared():
    queue, other = FeatureQueue(3), FeatureQueue(3)
    queue.build(classes=2, features=2)
    pushed(queue, random(4, 2), [0, 0, 1, 1])
    other.load_state_dict(queue.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(queue.by_class(), other.by_class(), strict=True))
    queue.clear()
    assert not queue.state_dict()
    other.load_state_dict(queue.state_dict())
    assert not other.state_dict()


def test_gaussian_tails_are_distributed_as_the_least_likely_of_real_draws():
    """Mean, covariance and Mahalanobis length of the tails, against drawing all candidates and sorting."""
    features = [random(50, 3) @ random(3, 3, seed=1) + 5, random(30, 3, seed=2)]
    centered = np.concatenate([(z - z.mean(0)).double().numpy() for z in features])
    covariance = centered.T @ centered / len(centered)
    covariance += 1e-3 * covariance.diagonal().mean() * np.eye(3)
    rng = np.random.default_rng(0)
    drawn, expected = [], []
    with seeded(0, "tails"):
        for _ in range(1500):
            drawn.append(gaussian_tails(features, 40, 2).view(2, 2, 3).double().numpy())
    for _ in range(1500):
        of_classes = []
        for z in features:
            x = rng.multivariate_normal(z.double().numpy().mean(0), covariance, 40)
            d = x - z.double().numpy().mean(0)
            m = np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)
            of_classes.append(x[np.argsort(-m)[:2]])
        expected.append(of_classes)
    for c, z in enumerate(features):
        mean = z.double().numpy().mean(0)
        ours, theirs = (np.array(x)[:, c].reshape(-1, 3) - mean for x in (drawn, expected))
        scale = np.sqrt(covariance.diagonal())
        assert np.abs(ours.mean(0) / scale).max() < 0.2
        np.testing.assert_allclose(np.cov(ours.T), np.cov(theirs.T), rtol=0.15, atol=0.1 * scale.max() ** 2)
        lengths = [np.sqrt(np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)) for d in (ours, theirs)]
        np.testing.assert_allclose(
            np.quantile(lengths[0], [0.1, 0.5, 0.9]), np.quantile(lengths[1], [0.1, 0.5, 0.9]), rtol=0.03
        )


def test_vos_is_energy_logistic_on_virtual_outliers_behind_the_head():
    one = step(12, head=Head(weight_CF=random(3, 6), bias_C=random(3, seed=1)), progress=0.5)
    loss = built("vos", beta=0.7, candidates=5, select=2)
    with seeded(0, "vos"):
        terms = loss(one)
    with seeded(0, "vos"):
        virtual = gaussian_tails([one.id.z_BF[one.y_B == c].detach() for c in range(3)], 5, 2)
    logits = virtual @ one.head.weight_CF.T + one.head.bias_C
    expected = make("losses", "energy_logistic", beta=0.7)(replace(one, ood=output(logits))).total
    assert len(virtual) == 6
    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-5)
    terms.total.backward()
    assert one.id.z_BF.grad is None, "the queue holds features without gradients"


@pytest.mark.parametrize("name", ["vos", "npos"])
def test_virtual_outliers_come_late_and_only_where_features_are(name):
    loss = built(name, start=0.5)
    early = loss(step(progress=0.49))
    ce = built("cross_entropy")(step()).total
    assert early.total.item() == pytest.approx(ce.item(), rel=1e-6)
    early.total.backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert loss(step(progress=0.5)).total.item() > ce.item() + 1e-3
    alone = built(name)(step(3, progress=1.0)).total
    assert alone.item() == pytest.approx(built("cross_entropy")(step(3)).total.item(), rel=1e-6)


def test_npos_keeps_the_farthest_copies_of_the_features_at_the_edge():
    z, noise = F.normalize(random(9, 4), dim=1), 0.3 * random(7, 4, seed=1)
    k, boundary, select = 3, 2, 2
    x = z.double().numpy()
    distance = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)[:, k]  # column 0 is itself
    expected = []
    for edge in np.argsort(-distance)[:boundary]:
        copies = x[edge] + noise.double().numpy()
        copies /= np.linalg.norm(copies, axis=1, keepdims=True)
        kth = np.sort(np.linalg.norm(copies[:, None] - x, axis=2), axis=1)[:, k - 1]
        expected.extend(copies[np.argsort(-kth)[:select]])
    np.testing.assert_allclose(beyond_boundary(z, k, boundary, noise, select).numpy(), expected, atol=1e-5)
    assert len(beyond_boundary(z[:2], 50, 5, noise, 1)) == 2, "few features: all of them, and the farthest"


def test_npos_is_a_logistic_regression_on_unit_features():
    one = step(12)
    loss = built("npos", beta=0.7, k=2, boundary=1, candidates=4)
    with seeded(0, "npos"):
        terms = loss(one)
    with seeded(0, "npos"):
        noise = 0.1 * torch.randn(4, 6)
    z = F.normalize(one.id.z_BF, dim=1)
    virtual = torch.cat([beyond_boundary(z[one.y_B == c], 2, 1, noise, 1) for c in range(3)])
    known, unknown = (loss.known(x)[:, 0].detach().double().numpy() for x in (z, virtual))
    expected = 0.5 * (np.log1p(np.exp(-known)).mean() + np.log1p(np.exp(unknown)).mean())
    assert terms.parts["npos"].item() == pytest.approx(expected, rel=1e-5)
    assert terms.total.item() == pytest.approx(terms.parts["ce"].item() + 0.7 * expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("logit_norm", {"tau": 0}, "tau must be above 0, not 0"),
        ("fever", {"weight": -1}, "weight must be at least 0"),
        ("vos", {"start": 1.5}, "start must be between 0 and 1"),
        ("vos", {"candidates": 3, "select": 4}, "select is at most the number of candidates, 3"),
        ("npos", {"sigma": 0.0}, "sigma must be above 0"),
        ("ish", {"percentile": 1.0}, "percentile must be between 0 and 1, without the ends"),
        ("npos", {"candidates": 3, "select": 4}, "select is at most the number of candidates, 3"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make("losses", name, **options)


@pytest.mark.parametrize("name", ["vos", "fever", "ish"])
def test_losses_on_the_head_need_one(name):
    with pytest.raises(ValueError, match=f"{name} needs the classifier's linear head"):
        built(name)(step(head=None))
    assert LossSum({name: built(name), "cross_entropy": built("cross_entropy")}).needs_head


def test_a_classifier_is_trained_with_all_of_them_and_keeps_no_queue(tmp_path):
    """The head's gradient comes through the virtual outliers; the kept loss is small."""
    loss = make_loss(("vos", "npos", "fever", "logit_norm"), {"start": 0.0, "npos.start": 0.5})
    config = TrainConfig(optimisation=replace(UNMOVED, epochs=4))
    trained = train([known(images(32))], config, 0, CPU, tmp_path / "state", "test", loss=loss)
    assert trained.log[0]["npos"] == 0 < trained.log[-1]["npos"]
    assert min(trained.log[0][part] for part in ("energy", "fever")) > 0
    assert sum(x.numel() for x in trained.loss.state_dict().values()) == 2


@pytest.mark.parametrize("transform", ["varied", "mixed", "attributed"])
def test_losses_without_outliers_may_be_shown_none(transform, tmp_path):
    """With a ratio of 0 the training is the one of known images alone."""
    data = images(32)
    config = TrainConfig(optimisation=replace(UNMOVED, epochs=2))
    none = known_in_place(data, 8, "outlier", RegularizeConfig(known_transform=transform, ratio=0.0), data)
    logs = [
        train(
            sources, config, 0, CPU, tmp_path / str(i), "test", loss=make_loss(("vos",), {"start": 0.5})
        ).log
        for i, sources in enumerate(([known(data)], [known(data), none]))
    ]
    assert logs[0] == logs[1]


def test_ish_changes_the_gradient_of_the_heads_weights_alone():
    g = generator(5, "ish")
    z, weight = torch.rand(6, 20, generator=g), torch.randn(4, 20, generator=g)
    bias, y = torch.randn(4, generator=g), torch.tensor([0, 1, 2, 3, 0, 1])
    gradients = {}
    for name in ("cross_entropy", "ish"):
        parts = [t.clone().requires_grad_() for t in (z, weight, bias)]
        logits = parts[0] @ parts[1].T + parts[2]
        head = Head(weight_CF=parts[1], bias_C=parts[2])
        one = Step(id=output(logits, parts[0]), y_B=y, weight_B=torch.ones(6), head=head)
        total = make("losses", name, **({"percentile": 0.7} if name == "ish" else {}))(one).total
        gradients[name] = total.item(), *torch.autograd.grad(total, parts)
    value, by_z, by_weight, by_bias = gradients["ish"]
    plain = gradients["cross_entropy"]
    assert value == pytest.approx(plain[0], rel=1e-6)
    torch.testing.assert_close(by_z, plain[1])
    torch.testing.assert_close(by_bias, plain[3])

    x, p = z.double().numpy(), (z @ weight.T + bias).softmax(1).double().numpy()
    expected = np.zeros((4, 20))
    for row, label, chance in zip(x, y.tolist(), p, strict=True):
        largest = np.argsort(row)[-6:]  # of 20, above the percentile 0.7
        shaped = np.zeros(20)
        shaped[largest] = row[largest] * np.exp(row.sum() / row[largest].sum())
        expected += np.outer(chance - np.eye(4)[label], shaped) / 6
    np.testing.assert_allclose(by_weight.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_ish_trains_another_network_than_cross_entropy_does(tmp_path):
    data, config = images(48), TrainConfig(optimisation=replace(UNMOVED, epochs=4, lr=0.01))
    trained = {
        name: train([known(data)], config, 0, CPU, tmp_path / name, "test", loss=make_loss((name,)))
        for name in ("ish", "cross_entropy")
    }
    assert trained["ish"].log[-1]["loss"] < trained["ish"].log[0]["loss"]
    heads = [one.network.head.weight for one in trained.values()]
    assert not torch.equal(*heads)
