"""OAL's parts: estimators against closed forms, where their gradients come from, paths, and distillation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.config import Optimisation, TrainConfig
from oodream.core.registry import make, own_options
from oodream.core.seeding import seeded
from oodream.core.types import Latents, Output, Sizes, Step
from oodream.data.images import from_array
from oodream.models.factory import backbone
from oodream.training.augment import greyscale
from oodream.training.batches import DrawnFrom, LatentBank, Mixture, epoch_batches
from oodream.training.loop import teaching
from oodream.training.losses.club import REDUCTIONS, Gaussian
from oodream.training.losses.micl import info_nce
from oodream.training.train import Sum, learn_adapter, make_loss, train

CPU = torch.device("cpu")
SIZES = Sizes(features=6, text=5, teacher=7, latent=(4, 8, 8))


def step(B: int = 12, O: int = 8, classes: int = 3, seed: int = 0, **other) -> Step:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    told = {
        "id": Output(logits_BC=normal(B, classes).requires_grad_(), z_BF=normal(B, 6).requires_grad_()),
        "y_B": torch.arange(B) % classes,
        "weight_B": torch.ones(B),
        "ood": Output(logits_BC=normal(O, classes), z_BF=normal(O, 6)),
        "vector_OD": F.normalize(normal(O, 5), dim=1),
        "near_O": torch.arange(O) % classes,
        "latent_OFHW": normal(O, 4, 8, 8),
        "tokens_CD": F.normalize(normal(classes, 5), dim=1),
        "teacher": Output(logits_BC=normal(B, classes), z_BF=normal(B, 7)),
    }
    return Step(**{**told, **other})


def made(name: str, **options):
    with seeded(0, "loss"):
        loss = make("losses", name, **options)
        loss.build(SIZES)
    return loss


# Estimators on correlated Gaussians, whose mutual information is known ----------------------------------------------------------


def gaussians(rho: float, n: int, d: int = 2) -> tuple[torch.Tensor, torch.Tensor, float]:
    g = torch.Generator().manual_seed(1)
    x, e = torch.randn(2, n, d, generator=g)
    return x, rho * x + math.sqrt(1 - rho**2) * e, -0.5 * d * math.log(1 - rho**2)


class Exact(nn.Module):
    """q(y | x) of the Gaussians, in the shape that `Gaussian` gives its answers."""

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    bound, unlikelihood = Gaussian.bound, Gaussian.unlikelihood

    def mu(self, x):
        return self.rho * x

    def logvar(self, x):
        return torch.full_like(x, math.log(1 - self.rho**2))


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_club_is_its_closed_form_and_an_upper_bound(rho):
    """With the true q the bound is rho^2 / (1 - rho^2) for each dimension, which is at least -log(1 - rho^2) / 2."""
    x, y, truth = gaussians(rho, 200_000)
    bound = Exact(rho).bound(x, y).item()
    assert bound == pytest.approx(2 * rho**2 / (1 - rho**2), abs=0.03)
    assert bound >= truth - 0.03


def test_club_without_a_table_equals_the_double_sum():
    x, y, _ = gaussians(0.6, 30)
    q = Exact(0.6)

    def log_q(i, j):
        mu, v = q.mu(x)[i], q.logvar(x)[i].exp()
        return (-0.5 * ((y[j] - mu) ** 2 / v + v.log() + math.log(2 * math.pi))).sum()

    n = len(x)
    expected = (
        sum(log_q(i, i) for i in range(n)) / n - sum(log_q(i, j) for i in range(n) for j in range(n)) / n**2
    )
    assert q.bound(x, y).item() == pytest.approx(expected.item(), rel=1e-4)
    assert q.unlikelihood(x, y).item() == pytest.approx(
        (-sum(log_q(i, i) for i in range(n)) / n).item(), rel=1e-5
    )


@pytest.mark.parametrize("rho", [0.3, 0.7, 0.9])
def test_info_nce_bounds_from_below_and_comes_near(rho):
    """With the true density ratio as score: log K minus the loss."""
    x, y, truth = gaussians(rho, 4000, d=1)
    found = []
    for part in range(0, 4000, 500):
        a, b = x[part : part + 500], y[part : part + 500]
        ratio = -0.5 * ((b.T - rho * a) ** 2 / (1 - rho**2) - b.T**2) - 0.5 * math.log(1 - rho**2)
        found.append(math.log(500) - info_nce(ratio, torch.arange(500)).item())
    assert np.mean(found) <= truth + 0.05
    assert np.mean(found) >= 0.85 * truth - 0.03


# Where gradients come from ------------------------------------------------------------------------------------------------------


def gradient(loss, told: Step) -> torch.Tensor:
    """Of the loss by the ID features."""
    (found,) = torch.autograd.grad(loss(told).total, told.id.z_BF, allow_unused=True)
    return found


def over_pairings(loss, told: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients' mean over all cyclic pairings of ID rows with outliers, and their mean size."""
    B = len(told.y_B)
    found = []
    for shift in range(B):
        order = (torch.arange(B) + shift) % B
        again = {
            **vars(told),
            "latent_OFHW": told.latent_OFHW[order],
            "vector_OD": told.vector_OD[order],
            "near_O": told.near_O[order],
        }
        found.append(
            gradient(
                loss,
                Step(
                    **{**again, "ood": Output(logits_BC=told.ood.logits_BC[order], z_BF=told.ood.z_BF[order])}
                ),
            )
        )
    found = torch.stack(found)
    return found.mean(0).norm(), found.flatten(1).norm(dim=1).mean()


@pytest.mark.parametrize("of", ["latents", "vectors"])
def test_the_published_codes_gradient_is_zero_on_average(of):
    """Exactly: over all pairings of a batch the positive term's gradient is the negative term's."""
    told = step(B=12, O=12)
    mean, size = over_pairings(made("club_joint", of=of), told)
    assert size > 1e-3
    assert mean < 1e-6 * size + 1e-9


@pytest.mark.parametrize("name", ["micl", "club"])
def test_ours_is_not(name):
    mean, size = over_pairings(made(name), step(B=12, O=12))
    assert mean > 0.3 * size


def test_club_joint_also_leaves_q_where_it_was_on_average():
    told, loss = step(B=12, O=12), made("club_joint")
    found = []
    for shift in range(12):
        order = (torch.arange(12) + shift) % 12
        loss.zero_grad()
        loss(Step(**{**vars(told), "latent_OFHW": told.latent_OFHW[order]})).total.backward()
        found.append(torch.cat([p.grad.flatten() for p in loss.q.parameters()]))
    found = torch.stack(found)
    assert found.mean(0).norm() < 1e-5 * found.norm(dim=1).mean()


def test_clubs_two_steps_do_not_touch_each_other():
    told, loss = step(), made("club", weight=0.5, rate=0.0)
    loss(told).total.backward()
    assert told.id.z_BF.grad.norm() > 0
    assert all(p.grad is None or p.grad.norm() == 0 for p in loss.q.parameters()), "the bound does not move q"
    told, loss = step(), made("club", weight=0.0, rate=1.0)
    loss(told).total.backward()
    assert told.id.z_BF.grad.norm() == 0, "the likelihood does not move features"
    assert any(p.grad.norm() > 0 for p in loss.q.parameters())


def test_club_pairs_an_image_with_an_outlier_of_its_class():
    """Features that equal the mean of their class's outliers: q, taught, finds the pairs informative; shuffled classes do not."""
    loss = made("club", of="vectors")
    near = torch.arange(12) % 3
    told = step(B=12, O=12, near_O=near, vector_OD=F.one_hot(near, 5).float() * 2)
    z = F.one_hot(told.y_B, 6).float() * 3
    told = Step(**{**vars(told), "id": Output(logits_BC=told.id.logits_BC, z_BF=z)})
    optimizer = torch.optim.Adam(loss.q.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss(told).parts["club_nll"].backward()
        optimizer.step()
    assert loss(told).parts["club"] > 1
    wrong = Step(**{**vars(told), "near_O": near.roll(1)})
    assert loss(wrong).parts["club"] < 0


def test_micl_pulls_features_to_their_own_vectors():
    loss = made("micl", weight=1.0, temperature=0.2)
    z, ood = torch.randn(12, 6), torch.randn(8, 6)
    known, unknown = (x.clone().requires_grad_() for x in (z, ood))
    optimizer = torch.optim.Adam([known, unknown, *loss.parameters()], 0.05)
    told = step(B=12, O=8)

    def now():
        return Step(
            **{
                **vars(told),
                "id": Output(logits_BC=known, z_BF=known),
                "ood": Output(logits_BC=unknown, z_BF=unknown),
            }
        )

    before = loss(now()).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(now()).total.backward()
        optimizer.step()
    assert loss(now()).total < 0.2 * before
    mapped = F.normalize(loss.map(known), dim=1)
    assert ((mapped @ torch.cat([told.tokens_CD, told.vector_OD]).T).argmax(1) == told.y_B).all()


# Knowledge distillation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_the_formula(temperature):
    told = step()
    p, q = (np.exp(x.detach().numpy() / temperature) for x in (told.teacher.logits_BC, told.id.logits_BC))
    p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
    expected = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert made("kd", temperature=temperature).forward(told).total.item() == pytest.approx(expected, rel=1e-5)


def test_kd_holds_the_teacher_constant_and_joint_does_not():
    g = torch.randn(12, 7, requires_grad=True)
    told = step(teacher=Output(logits_BC=torch.randn(12, 3), z_BF=g))
    made("kd", feature=1.0)(told).total.backward()
    assert told.id.z_BF.grad.norm() > 0
    joint = made("kd", feature=1.0, joint=True)
    joint(step(teacher=Output(logits_BC=torch.randn(12, 3), z_BF=torch.randn(12, 7)))).total.backward()
    assert joint.map[1].weight.grad.norm() > 0


def test_a_teacher_may_know_only_the_images_of_a_step():
    """Rows of latents follow those of images; the teacher is asked about images alone."""
    told = step(teacher=Output(logits_BC=torch.randn(5, 3), z_BF=torch.randn(5, 7)))
    (grad,) = torch.autograd.grad(made("kd")(told).total, told.id.logits_BC)
    assert (grad[:5] != 0).any(1).all()
    assert (grad[5:] == 0).all()


def pictures(n: int = 24, classes: int = 3):
    g = torch.Generator().manual_seed(n)
    return from_array(
        "x",
        torch.randint(0, 255, (n, 3, 32, 32), generator=g, dtype=torch.uint8),
        torch.arange(n) % classes,
        "abc",
    )


def test_teacher_outputs_are_computed_once_where_that_is_exact():
    teacher, data, calls = backbone("resnet8", 3), Mixture(id=pictures()), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    plain = Optimisation(batch=8, crop_padding=0, flip=False)
    ask = teaching(teacher, data, plain, CPU)
    before = len(calls)
    for batch in epoch_batches(data, plain, 0, 0):
        with torch.no_grad():
            torch.testing.assert_close(ask(batch).logits_BC, teacher(batch.images_B3HW).logits_BC)
    assert len(calls) - before == 3, "the three calls of this loop"
    moved = Optimisation(batch=8)
    ask, before = teaching(teacher, data, moved, CPU), len(calls)
    for batch in epoch_batches(data, moved, 0, 0):
        ask(batch)
    assert len(calls) - before == 3, "asked anew for every augmented batch"


# Latents ------------------------------------------------------------------------------------------------------------------------


def test_the_references_reductions():
    x = torch.randn(2, 4, 6, 8)
    assert torch.equal(REDUCTIONS["whole"](x), x.flatten(1))
    assert torch.allclose(REDUCTIONS["channel_mean"](x), x.mean(1).flatten(1))
    assert torch.allclose(REDUCTIONS["column"](x), x.mean(1).mean(1))
    assert REDUCTIONS["column"](torch.randn(300, 4, 64, 64)).shape == (300, 64)


def bank(n: int = 24, m: int = 6) -> LatentBank:
    g = torch.Generator().manual_seed(3)
    known = torch.randn(n, 4, 8, 8, generator=g).half()
    pairs = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8), torch.randn(4, 4, 8, 8).half()
    return LatentBank(
        known=lambda rows: known[rows],
        coloured=pairs,
        ood_MFHW=torch.randn(m, 4, 8, 8, generator=g).half(),
        share=0.5,
    )


def mixture(**other) -> Mixture:
    drawn = DrawnFrom(
        vector_MD=F.normalize(torch.randn(6, 5), dim=1),
        near_M=torch.arange(6) % 3,
        tokens_CD=F.normalize(torch.randn(3, 5)),
    )
    return Mixture(**{"id": pictures(), "bank": bank(), "drawn_from": drawn, "ratio": 0.5, **other})


def test_latents_come_with_the_images_they_belong_to():
    data = mixture()
    for batch in epoch_batches(data, Optimisation(batch=8, crop_padding=0, flip=False), 0, 0):
        assert len(batch.images_B3HW) == len(batch.row_B) == 8
        assert len(batch.y_B) == len(batch.weight_B) == 8 + 4
        assert len(batch.latents.latent_LFHW) == 4 + 4
        pairs = batch.row_B[-4:]
        assert torch.equal(batch.latents.pair_K3HW, data.id.batch(pairs))
        assert torch.equal(batch.latents.latent_LFHW[:4], data.bank.known(pairs).float())
        assert torch.equal(batch.y_B[8:], data.id.labels[pairs])
        for latent, near, vector in zip(
            batch.latents.latent_LFHW[4:], batch.near_O, batch.vector_OD, strict=True
        ):
            m = (data.bank.ood_MFHW.float() == latent).flatten(1).all(1).nonzero().item()
            assert data.drawn_from.near_M[m] == near
            assert torch.equal(data.drawn_from.vector_MD[m], vector)


def test_latents_flip_with_their_images():
    data = mixture()
    for batch in epoch_batches(data, Optimisation(batch=8, crop_padding=0), 0, 0):
        rows = batch.row_B[-4:]
        as_they_are = (batch.latents.pair_K3HW == data.id.batch(rows)).flatten(1).all(1)
        latent_too = (batch.latents.latent_LFHW[:4] == data.bank.known(rows).float()).flatten(1).all(1)
        assert torch.equal(as_they_are, latent_too)


@pytest.mark.parametrize("name", ["stem", "projector"])
def test_a_path_gives_outputs_for_images_then_latents_and_learns_the_pairs(name):
    with seeded(0, "path"):
        model = backbone("resnet8", 3).eval()  # so that what is to be learned stays
        path = make("latent_adapters", name, model=model, latent=(4, 8, 8), size=32)
        coarse = torch.rand(16, 3, 4, 4)
    # Latents from which the images can be told: their own 8 x 8 means.
    images = (F.interpolate(coarse, (32, 32), mode="bilinear") * 255).to(torch.uint8)
    latent = torch.cat([F.avg_pool2d(images.float() / 127.5 - 1, 4), torch.zeros(16, 1, 8, 8)], 1)
    told = Latents(
        latent_LFHW=torch.cat([latent, torch.randn(5, 4, 8, 8)]), pair_K3HW=images, shown=lambda x: x
    )
    out, first = path(model, images[:3], told)
    assert out.logits_BC.shape == (3 + 16 + 5, 3)
    assert out.z_BF.shape == (24, 128)
    optimizer = torch.optim.Adam(path.parameters(), 0.005)
    for _ in range(60):
        optimizer.zero_grad()
        _, off = path(model, images[:3], told)
        off.backward()
        optimizer.step()
    assert off < 0.6 * first
    for parameter in model.parameters():
        assert parameter.grad is None, "the pairs teach the path, not the network"


def test_stem_is_for_built_in_networks():
    class Other(nn.Module):
        pass

    with pytest.raises(ValueError, match="Use the path projector"):
        make("latent_adapters", "stem", model=Other(), latent=(4, 8, 8), size=32)


@pytest.mark.parametrize("batch", [1, 5, 8, 40])
@pytest.mark.parametrize(
    "losses",
    [("energy_logistic", "micl", "kd"), ("energy_logistic", "club"), ("energy_logistic", "club_joint")],
)
def test_the_whole_recipe_trains_at_any_batch_size(batch, losses, tmp_path):
    """A batch of one, one that leaves images over, one larger than the data."""
    config = TrainConfig(
        path="stem", loss=losses, optimisation=Optimisation(epochs=1, batch=batch), ratio=1.0
    )
    data = mixture(ratio=1.0)
    _, loss, log = train(data, config, 0, CPU, tmp_path / "s", "t", teacher=backbone("resnet8", 3))
    assert isinstance(loss, Sum)
    assert all(math.isfinite(value) for value in log[0].values())
    assert {"energy", "path"} <= log[0].keys()


def test_options_belong_to_their_loss():
    config = TrainConfig(loss=("energy_logistic", "kd"), loss_options={"beta": 2.0, "kd.logit": 3.0})
    assert own_options("losses", config.loss, config.loss_options) == {
        "energy_logistic": {"beta": 2.0},
        "kd": {"logit": 3.0},
    }
    assert make_loss(config).teacher
    twice = make_loss(
        TrainConfig(
            loss=("cross_entropy", "club_joint@a", "club_joint@b"), loss_options={"club_joint@b.weight": 3.0}
        )
    )
    assert [loss.weight for loss in list(twice.losses.values())[1:]] == [0.2, 3.0]
    twice.build(SIZES)
    assert {"club_joint@a", "club_joint@b"} <= twice(step()).parts.keys()
    with pytest.raises(
        ValueError, match=r"micl.weight is of a loss that is not used; the losses are energy_logistic, kd"
    ):
        make_loss(TrainConfig(loss=("energy_logistic", "kd"), loss_options={"micl.weight": 2.0}))


def test_losses_that_lack_what_they_need_say_so():
    for name, lacking, message in [
        ("micl", "vector_OD", "needs outliers and the vectors"),
        ("club", "latent_OFHW", "needs outliers as latents"),
        ("kd", "teacher", "needs a teacher"),
    ]:
        with pytest.raises(ValueError, match=message):
            made(name)(step(**{lacking: None}))
    with pytest.raises(ValueError, match="of vectors"):
        make("losses", "club").build(Sizes(features=6, text=5))


def test_a_classifier_is_not_trained_through_previews_that_have_learnt_nothing(tmp_path):
    config = TrainConfig(
        path="preview", loss=("energy_logistic",), optimisation=Optimisation(epochs=1, batch=8), ratio=1.0
    )
    with pytest.raises(ValueError, match="preview learns before a classifier does"):
        train(mixture(), config, 0, CPU, tmp_path / "s", "t")
    learnt = learn_adapter(mixture(), replace(config, adapter_options={"steps": 2}), 0, CPU)
    _, _, log = train(mixture(), config, 0, CPU, tmp_path / "s", "t", learnt=learnt)
    assert math.isfinite(log[0]["energy"])


def test_previews_learn_before_the_classifier_and_stay(tmp_path):
    """Latents that hold the image's 8 x 8 means: previews come near the images, and no gradient of the classifier reaches them."""
    with seeded(0, "preview"):
        model = backbone("resnet8", 3)
        path = make("latent_adapters", "preview", model=model, latent=(4, 8, 8), size=32, steps=200)
    coarse = F.interpolate(torch.rand(24, 3, 4, 4), (32, 32), mode="bilinear")
    images = from_array("x", (coarse * 255).to(torch.uint8), torch.arange(24) % 3, "abc")

    def encode(x):
        return torch.cat([F.avg_pool2d(x.float() / 127.5 - 1, 4), torch.zeros(len(x), 1, 8, 8)], 1)

    pixels = images.batch(range(24))
    other = LatentBank(
        known=lambda rows: encode(pixels[rows]),
        coloured=(pixels[:4], encode(pixels[:4])),
        ood_MFHW=torch.randn(6, 4, 8, 8),
        share=0.5,
    )
    path.learn(mixture(id=images, bank=other), 0, CPU)
    assert (path.draw(encode(pixels)).float() - pixels.float()).abs().mean() < 12
    told = Latents(latent_LFHW=encode(pixels[:5]), pair_K3HW=pixels[:2], shown=greyscale)
    path.zero_grad()
    out, off = path(model, pixels[:3], told)
    assert out.logits_BC.shape == (8, 3)
    assert off is None
    out.logits_BC.sum().backward()
    assert all(p.grad is None for p in path.parameters())


def test_outliers_are_mixed_with_known_latents():
    plain, mixed = mixture(), mixture(bank=replace(bank(), least=0.4))
    a, b = (
        next(epoch_batches(m, Optimisation(batch=8, flip=False), 0, 0)).latents.latent_LFHW
        for m in (plain, mixed)
    )
    assert torch.equal(a[:4], b[:4]), "known ones stay"
    for ood, made in zip(a[4:], b[4:], strict=True):
        shares = []
        for known in mixed.bank.known(torch.arange(24)).float():
            d = (ood - known).flatten()
            share = (d @ (made - known).flatten()) / (d @ d)
            if torch.allclose(share * ood + (1 - share) * known, made, atol=1e-3):
                shares.append(share.item())
        assert len(shares) == 1
        assert 0.4 <= shares[0] <= 1
