"""Latent adapters: what each learns of known pairs, and what stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from oodream.core.registry import make
from oodream.core.seeding import seeded
from oodream.core.types import Latents
from oodream.data.images import from_array
from oodream.models.factory import backbone
from oodream.training.augment import grayscale
from oodream.training.latent_adapters import unexplained_variance
from oodream.training.sources import KnownPairs, LatentSet
from tests.helpers.training import CPU

LATENT = {"latent": (4, 8, 8), "size": 32}


def smooth_images(n: int) -> torch.Tensor:
    """Images that their own 8 x 8 means tell."""
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(n))
    return (F.interpolate(coarse, (32, 32), mode="bilinear") * 255).to(torch.uint8)


def means(images: torch.Tensor) -> torch.Tensor:
    """Latents (n, 4, 8, 8): the images' 8 x 8 means, and a channel of zeros."""
    return torch.cat([F.avg_pool2d(images.float() / 127.5 - 1, 4), torch.zeros(len(images), 1, 8, 8)], 1)


def test_unexplained_variance_is_a_ratio_and_of_the_first_rows():
    target = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
    prediction = torch.tensor([[2.0, 5.0], [3.0, 6.0], [100.0, 100.0]], requires_grad=True)
    variance = ((target - 4.5) ** 2).sum().item() / 3
    assert unexplained_variance(prediction, target).item() == pytest.approx((1 + 9) / 4 / variance)
    nothing = unexplained_variance(prediction, target[:0])
    nothing.backward()
    assert nothing == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("name", ["stem", "projector"])
def test_it_learns_the_pairs_and_the_pairs_do_not_teach_the_network(name):
    with seeded(0, "path"):
        model = backbone("resnet8", 3).eval()  # so that what is to be learned stays
        adapter = make("latent_adapters", name, model=model, **LATENT)
    images = smooth_images(16)
    outliers = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = Latents(latent_LFHW=torch.cat([means(images), outliers]), pair_K3HW=images, augment=lambda x: x)
    output, first = adapter(model, images[:3], latents)
    assert torch.autograd.grad(output.logits_BC.sum(), model.head.weight, retain_graph=True)[0].any()
    of_adapter = torch.autograd.grad(output.logits_BC.sum(), [*adapter.parameters()], allow_unused=True)
    assert all(gradient is None for gradient in of_adapter), "its own loss alone teaches it"
    assert output.logits_BC.shape == (3 + 16 + 5, 3)
    assert output.z_BF.shape == (24, 128)
    optimizer = torch.optim.Adam(adapter.parameters(), 0.005)
    for _ in range(60):
        optimizer.zero_grad()
        _, own_loss = adapter(model, images[:3], latents)
        own_loss.backward()
        optimizer.step()
    assert own_loss < 0.6 * first
    assert all(parameter.grad is None for parameter in model.parameters())


def test_stem_is_for_built_in_networks():
    class Other(nn.Module):
        pass

    with pytest.raises(ValueError, match=r"a built-in network, not Other\. Use the latent adapter projector"):
        make("latent_adapters", "stem", model=Other(), **LATENT)


def test_previews_learn_before_the_classifier_and_stay():
    """They come near the images, are shown as `augment` says, and get no gradient of the classifier."""
    with seeded(0, "preview"):
        model = backbone("resnet8", 3).eval()
        adapter = make("latent_adapters", "preview", model=model, **LATENT, steps=100)
    pixels = smooth_images(24)
    latents = means(pixels)
    pairs = KnownPairs(
        images=from_array("x", pixels, torch.arange(24) % 3, "abc"),
        latents=LatentSet(labels=torch.arange(24) % 3, read=lambda rows: latents[rows]),
        recolored_P3HW=pixels[:4],
        recolored_latents_PFHW=latents[:4],
    )
    adapter.fit(pairs, 0, CPU)
    previews = adapter.draw(latents)
    assert (previews.float() - pixels.float()).abs().mean() < 12
    adapter.zero_grad()
    output, own_loss = adapter(
        model, pixels[:3], Latents(latent_LFHW=latents[:5], pair_K3HW=pixels[:2], augment=grayscale)
    )
    assert own_loss is None
    expected = model(torch.cat([pixels[:3], grayscale(previews[:5])]))
    torch.testing.assert_close(output.logits_BC, expected.logits_BC)
    output.logits_BC.sum().backward()
    assert all(parameter.grad is None for parameter in adapter.parameters())
