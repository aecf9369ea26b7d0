"""The verb train: losses by name, adapters that learn first, the whole recipe, and where training begins."""

from __future__ import annotations

import math

import pytest
import torch

from oodream.config import LatentsConfig, Optimisation, TrainConfig
from oodream.models.inference import Extractor
from oodream.training.losses.energy_logistic import EnergyLogistic
from oodream.training.sources import known_in_place, known_latents
from oodream.training.train import adapter_maker, is_pretrained, learn_adapter, make_loss, train
from tests.helpers.training import (
    CPU,
    SIZES,
    VARIED,
    images,
    known,
    latent_pairs,
    latent_sources,
    network,
    outliers,
    step,
)

SHORT = TrainConfig(optimisation=Optimisation(epochs=1, batch=8))


def recipe(
    tmp_path, losses, *, batch: int = 8, adapter: LatentsConfig | None = None, learned=None, **sources
):
    """The log of a short training on latents."""
    adapter = adapter or LatentsConfig(adapter="stem")
    config = TrainConfig(optimisation=Optimisation(epochs=1, batch=batch))
    trained = train(
        latent_sources(ratio=1.0, **sources),
        config,
        0,
        CPU,
        tmp_path / "s",
        "t",
        loss=make_loss(losses),
        adapter=adapter_maker(adapter, (4, 8, 8), 32, learned),
        teacher=network(),
    )
    return trained, trained.log


# Losses


def test_options_belong_to_their_loss():
    loss = make_loss(("energy_logistic", "kd"), {"beta": 2.0, "kd.logit": 3.0})
    assert loss.teacher
    assert loss.outliers
    twice = make_loss(("cross_entropy", "club_joint@a", "club_joint@b"), {"club_joint@b.weight": 3.0})
    assert [loss.weight for loss in list(twice.losses.values())[1:]] == [0.2, 3.0]
    twice.build(SIZES)
    assert {"club_joint@a", "club_joint@b"} <= twice(step()).parts.keys()


def test_several_losses_add_up():
    losses = make_loss(("cross_entropy", "outlier_exposure", "kd"), {"kd.logit": 2.0})
    losses.build(SIZES)
    told = step()
    alone = [make_loss((name,))(told) for name in ("cross_entropy", "outlier_exposure", "kd")]
    total = alone[0].total + alone[1].total + 2 * alone[2].total
    assert losses(told).total.item() == pytest.approx(total.item(), rel=1e-6)


def test_what_a_loss_lacks_is_said_before_training(tmp_path):
    for names, message in (("energy_logistic", "needs outliers"), ("kd", "needs a teacher")):
        with pytest.raises(ValueError, match=f"t: the loss {message}, and there is none"):
            train([known(images(16))], SHORT, 0, CPU, tmp_path / "s", "t", loss=make_loss((names,)))
    sources = [known(images(16)), known_in_place(images(16), 8, "outlier", VARIED, images(16))]
    with pytest.raises(ValueError, match="micl needs the vectors outliers were imagined from"):
        train(sources, SHORT, 0, CPU, tmp_path / "s", "t", loss=make_loss(("energy_logistic", "micl")))


# Training


@pytest.mark.parametrize("batch", [1, 5, 8, 40])
@pytest.mark.parametrize(
    "losses",
    [("energy_logistic", "micl", "kd"), ("energy_logistic", "club"), ("energy_logistic", "club_joint")],
)
def test_the_whole_recipe_trains_at_any_batch_size(batch, losses, tmp_path):
    """A batch of one, one that leaves images over, one larger than the data."""
    trained, log = recipe(tmp_path, losses, batch=batch)
    assert isinstance(trained.loss, EnergyLogistic), "a classifier keeps the first"
    assert all(math.isfinite(value) for value in log[0].values())
    assert {"energy", "adapter", *losses[1:]} <= log[0].keys()


def test_the_control_trains_on_images_and_on_latents(tmp_path):
    data = images(24, size=32)
    sources = [known(data), known_in_place(data, 6, "outlier", VARIED, data)]
    log = train(sources, SHORT, 0, CPU, tmp_path / "a", "t", loss=make_loss(("energy_logistic",))).log
    assert math.isfinite(log[0]["energy"])
    first, latents, _ = latent_sources()
    sources = [first, latents, known_in_place(latents.data, 6, "outlier", VARIED, first.data)]
    maker = adapter_maker(LatentsConfig(adapter="stem"), (4, 8, 8), 32)
    loss = make_loss(("energy_logistic", "kd"))
    state, teacher = tmp_path / "b", network()
    log = train(sources, SHORT, 0, CPU, state, "t", loss=loss, adapter=maker, teacher=teacher).log
    assert math.isfinite(log[0]["energy"])


def test_without_an_adapter_losses_of_their_own_see_the_latents(tmp_path):
    nowhere = LatentsConfig(adapter="none")
    assert adapter_maker(nowhere, (4, 8, 8), 32) is None
    first, latents, ood = latent_sources()
    sources = [first, known_latents(latents.data, nowhere), ood]
    loss = make_loss(("cross_entropy", "club"))
    log = train(sources, SHORT, 0, CPU, tmp_path / "s", "t", loss=loss).log
    assert log[0]["club"] != 0


def test_outliers_get_higher_energies(tmp_path):
    """The regularized classifier's energy tells bright outliers from dim known images."""
    config = TrainConfig(optimisation=Optimisation(epochs=6, batch=16, lr=0.05))
    sources = [known(images(64)), outliers(images(32, 180), ratio=1.0)]
    trained = train(sources, config, 0, CPU, tmp_path / "s", "t", loss=make_loss(("energy_logistic",)))
    known_energy, ood_energy = (
        -Extractor(trained.network)(data).logits_BC.logsumexp(1) for data in (images(64), images(32, 180))
    )
    assert known_energy.max() < ood_energy.min()


# Adapters


def test_a_classifier_is_not_trained_through_previews_that_have_learned_nothing(tmp_path):
    config = LatentsConfig(adapter="preview", options={"steps": 2})
    assert is_pretrained(config)
    assert not is_pretrained(LatentsConfig(adapter="stem"))
    assert not is_pretrained(LatentsConfig(adapter="none"))
    with pytest.raises(ValueError, match="preview learns before a classifier does"):
        recipe(tmp_path, ("energy_logistic",), adapter=config)
    learned = learn_adapter(latent_pairs(latent_sources()), config, "resnet8", 0, CPU)
    maker = adapter_maker(config, (4, 8, 8), 32, learned)
    adapters = []

    def remembered(model):
        adapters.append(maker(model))
        return adapters[-1]

    trained = train(
        latent_sources(),
        SHORT,
        0,
        CPU,
        tmp_path / "s",
        "t",
        loss=make_loss(("energy_logistic",)),
        adapter=remembered,
    )
    assert math.isfinite(trained.log[0]["energy"])
    state = adapters[0].state_dict()
    assert state.keys() == learned.keys()
    assert all(torch.equal(state[name], learned[name]) for name in learned), "they stay"
    assert trained.network.head.weight.requires_grad
