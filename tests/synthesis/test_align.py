"""The image encoder into the text's token space."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from oodream.config import AlignConfig, Optimisation
from oodream.core.types import ClassBook, Output, Step
from oodream.data.folders import load_folder
from oodream.synthesis.align import Pulled, align, augmented_views, embed, untrained_encoder
from tests.helpers.vectors import unit

CPU = torch.device("cpu")
CONFIG = AlignConfig(temperature=0.25, optimisation=Optimisation(epochs=3, batch=12, lr=0.05))


@pytest.fixture(scope="module")
def images(shapes):
    return load_folder(shapes, 16)[0]


@pytest.fixture(scope="module")
def book(images):
    return ClassBook(names=images.classes, prompts=images.classes, tokens_CD=3 * unit(3, 10), space="s")


def test_logits_are_cosines_over_the_temperature(images, book):
    model = untrained_encoder(book, CONFIG, seed=1).eval()
    x = images.batch([0, 20, 40])
    with torch.no_grad():
        output, h = model(x), model.network(x).logits_BC
    cosine = torch.stack([torch.cosine_similarity(h, token[None]) for token in book.tokens_CD], 1)
    torch.testing.assert_close(output.logits_BC, cosine / 0.25)
    torch.testing.assert_close(output.z_BF, normalize(h, dim=1))


def test_the_seed_fixes_the_weights(images, book):
    a, b, c = (untrained_encoder(book, CONFIG, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["network.head.weight"], c["network.head.weight"])


def test_training_brings_images_to_their_class_vectors(images, book, tmp_path):
    before = embed(untrained_encoder(book, CONFIG, 0), images, CPU)
    model, log = align(images, book, CONFIG, 0, CPU, tmp_path / "state")
    after = embed(model, images, CPU)
    tokens = normalize(book.tokens_CD, dim=1)[images.labels]
    assert (after.z_ND * tokens).sum(1).mean() > (before.z_ND * tokens).sum(1).mean() + 0.2
    assert len(log) == 3
    assert torch.equal(after.y_N, images.labels)
    assert after.index_N.tolist() == list(range(len(images)))
    assert after.encoder != before.encoder


def test_the_loss_is_cross_entropy_and_the_pull():
    cosine = torch.tensor([[0.5, 0.1, -0.2], [0.3, 0.9, 0.0]], dtype=torch.float64)
    y, weight = torch.tensor([0, 0]), torch.ones(2, dtype=torch.float64)
    step = Step(id=Output(logits_BC=cosine / 0.1, z_BF=torch.zeros(2, 0)), y_B=y, weight_B=weight)
    ce = -(10 * cosine[:, 0] - (10 * cosine).exp().sum(1).log()).mean()
    assert Pulled(20.0, 0.1)(step).total.item() == pytest.approx((ce + 20 * (0.5 + 0.7) / 2).item())
    assert Pulled(0.0, 0.1)(step).total.item() == pytest.approx(ce.item())


def test_the_pull_keeps_what_class_vectors_share(images, tmp_path):
    """Class vectors with a common direction: cross-entropy alone loses it, as it tells no class apart."""
    shared = torch.zeros(3, 10)
    shared[:, 0], shared[:, 1:4] = 1.0, torch.eye(3)
    book = ClassBook(names=images.classes, prompts=images.classes, tokens_CD=shared, space="s")
    longer = replace(CONFIG.optimisation, epochs=8)
    kept = []
    for pull in (0.0, 20.0):
        config = replace(CONFIG, temperature=0.1, pull=pull, optimisation=longer)
        model, _ = align(images, book, config, 0, CPU, tmp_path / f"{pull}")
        kept.append(embed(model, images, CPU).z_ND[:, 0].mean().item())
    assert kept[0] < 0.4
    assert kept[1] > 0.6


def test_views_are_augmented_by_row(images):
    """The same views for the same seed, whatever is read before; others for another one."""
    optimisation = Optimisation(crop_padding=3)
    a, b = augmented_views(images, optimisation, 5), augmented_views(images, optimisation, 6)
    rows = [3, 4, 5]
    assert torch.equal(a.batch(rows), a.batch(rows))
    assert not torch.equal(a.batch(rows), images.batch(rows))
    assert not torch.equal(a.batch(rows), b.batch(rows))
    assert torch.equal(a.labels, images.labels)
