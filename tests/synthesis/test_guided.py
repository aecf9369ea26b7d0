"""GOOD's guidance against its equations, and against the plain drawing that it becomes without strength."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from oodream.core.seeding import generator
from oodream.core.types import Output
from oodream.data.images import from_array
from oodream.synthesis.decoders import stable
from oodream.synthesis.decoders.guided import GuidedDecoder, distance
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.known import Known
from oodream.synthesis.schedulers import make_scheduler
from tests.helpers.vectors import unit

NAMES = ["circle", "square", "star"]


class Network(nn.Module):
    """A small smooth classifier."""

    def __init__(self) -> None:
        super().__init__()
        g = generator(0, "network")
        self.first = nn.Parameter(torch.randn(3 * 32 * 32, 6, generator=g) / 400)
        self.last = nn.Parameter(torch.randn(6, 3, generator=g))

    def forward(self, images_B3HW):
        z_BF = torch.tanh((images_B3HW.float() - 127.5).flatten(1) @ self.first)
        return Output(logits_BC=3 * z_BF @ self.last, z_BF=z_BF)


def known(n: int = 40) -> Known:
    pixels = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "known"))
    images, network = from_array("known", pixels, torch.arange(n) % 3, NAMES), Network()
    return Known(images=lambda: images, baseline=lambda: network)


def guided(source, **options) -> GuidedDecoder:
    return GuidedDecoder(str(source), names=NAMES, tile=4, **{"k": 5, **options}).with_known(known())


@pytest.fixture(autouse=True)
def _in_float32(monkeypatch):
    monkeypatch.setattr(stable, "multiplies_bf16", lambda device: False)


INPUTS = unit(4, 32), torch.tensor([0, 1, 2, 0]), torch.arange(4)


@pytest.mark.parametrize("scheduler", ["dpm++", "unipc", "pndm", "euler"])
def test_without_strength_it_draws_what_diffusers_does(tiny_pipeline, scheduler):
    decoder = guided(tiny_pipeline, strength=0.0, steps=4, scheduler=scheduler)
    ours, theirs = decoder(*INPUTS).images_B3HW.float(), decoder.plainly(*INPUTS).images_B3HW.float()
    assert (ours - theirs).abs().max() <= 1


def test_without_strength_it_draws_what_diffusers_does_with_sdxl(tiny_xl_pipeline):
    decoder = guided(tiny_xl_pipeline, strength=0.0, steps=3, scheduler="euler")
    inputs = unit(4, 64), *INPUTS[1:]
    ours, theirs = decoder(*inputs).images_B3HW.float(), decoder.plainly(*inputs).images_B3HW.float()
    assert (ours - theirs).abs().max() <= 1


@pytest.mark.parametrize("by", ["energy", "feature"])
def test_steps_are_those_of_the_published_algorithm(tiny_pipeline, by):
    """Both guidances of TFG by DDIM with eta 1, row by row, with the gradients of a function of one row."""
    decoder = guided(tiny_pipeline, by=by, strength=0.5, smooth=0.3, steps=2, scheduler="ddim", guidance=2.0)
    z, y, seed = INPUTS
    latents = decoder.latents(z, y, seed).latents_BFHW.float()
    pipe, network, others = decoder.pipeline, known().baseline(), known().images().batch(range(40))
    vae, states = pipe.vae, decoder.text.splice(z, y).states_BLD
    pipe.scheduler.set_timesteps(2)
    times = pipe.scheduler.timesteps
    alphas = [*(float(pipe.scheduler.alphas_cumprod[t]) for t in times), 1.0]
    ratios = [here / there for here, there in itertools.pairwise(alphas)]

    def log_p(clean):
        image = vae.decode(clean / vae.config.scaling_factor).sample
        output = network((image + 1) * 127.5)
        if by == "energy":
            return -output.logits_BC.exp().sum().log()
        features = network(others).z_BF
        features, own = (x / x.norm(dim=1, keepdim=True) for x in (features, output.z_BF))
        return (features - own).norm(dim=1).sort().values[4]

    for n in range(4):
        x = torch.randn((1, 4, 8, 8), generator=generator(n, "image"))
        noises = generator(n, "steps")
        for i, t in enumerate(times):
            a, there = alphas[i], alphas[i + 1]
            x = x.detach().requires_grad_()
            without = pipe.unet(x, t, encoder_hidden_states=decoder._uncond.states_BLD).sample
            prompted = pipe.unet(x, t, encoder_hidden_states=states[n : n + 1]).sample
            v = without + 2.0 * (prompted - without)
            clean, eps = (
                math.sqrt(a) * x - math.sqrt(1 - a) * v,
                math.sqrt(1 - a) * x + math.sqrt(a) * v,
            )
            smooth = 0.3 * math.sqrt(1 - a)
            smooth = smooth * torch.randn((1, 4, 8, 8), generator=generator(n, f"smooth {i}"))
            (in_latents,) = torch.autograd.grad(log_p(clean + smooth), x, retain_graph=True)
            moved = clean.detach().requires_grad_()
            (in_clean,) = torch.autograd.grad(log_p(moved + smooth), moved)
            with torch.no_grad():
                sigma = math.sqrt((1 - there) / (1 - a) * (1 - a / there))
                x = math.sqrt(there) * clean + math.sqrt(1 - there - sigma**2) * eps
                x = x + sigma * torch.randn((1, 4, 8, 8), generator=noises)
                weight = 0.5 * ratios[i] * 2 / sum(ratios)
                x = x + weight * (in_latents / math.sqrt(ratios[i]) + math.sqrt(there) * in_clean)
        torch.testing.assert_close(latents[n], x[0].detach(), atol=0.01, rtol=0.01)


@pytest.mark.parametrize("by", ["energy", "feature"])
def test_guided_images_are_less_known(by):
    """With a decoder that has learnt something: its networks' gradients lead where they should."""
    options = {"by": by, "strength": 0.5, "smooth": 0.01, "k": 5, "steps": 5, "tile": 4}
    decoder = GuidedDecoder(names=NAMES, **options).with_known(known())
    z = torch.nn.functional.normalize(decoder.book.tokens_CD, dim=1)[INPUTS[1]]
    guided_images, plain = (draw(z, *INPUTS[1:]).images_B3HW for draw in (decoder, decoder.plainly))
    with torch.no_grad():
        there, here = (known().baseline()(x) for x in (guided_images, plain))
    if by == "energy":
        assert there.logits_BC.logsumexp(1).mean() < here.logits_BC.logsumexp(1).mean() - 0.1
    else:
        far, near = (distance(x.z_BF, decoder._features, 5).mean() for x in (there, here))
        assert far > near + 0.02


@pytest.mark.parametrize("scheduler", ["dpm++", "unipc", "ddim", "pndm", "euler", "lcm"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_clean_latents_are_found_again(tiny_pipeline, scheduler, prediction):
    """Whatever is predicted and in whichever scale the scheduler has its latents."""
    decoder = guided(tiny_pipeline, steps=4)
    config = {**decoder.pipeline.scheduler.config, "prediction_type": prediction}
    decoder.pipeline.scheduler = make_scheduler(scheduler, config, 4)
    decoder.steps = 4
    times = decoder._timesteps()
    alpha = decoder.pipeline.scheduler.alphas_cumprod
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator(0, "test"))
    for time in times:
        noisy = decoder.scheduler.add_noise(clean, noise, time.expand(3))
        a = alpha[int(time)]
        predicted = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        torch.testing.assert_close(decoder._clean(noisy, time, predicted), clean, atol=2e-3, rtol=2e-3)


def test_distances_are_those_of_sorted_neighbours():
    z, others = torch.randn(5, 4, generator=generator(0, "z")), unit(30, 4, seed=1)
    own = z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=1, keepdims=True)
    far = np.sort(np.linalg.norm(own[:, None] - others.double().numpy()[None], axis=2), axis=1)
    for k in (1, 7, 30):
        np.testing.assert_allclose(distance(z, others, k).numpy(), far[:, k - 1], atol=1e-3)


def test_what_cannot_be_used_is_refused(tiny_pipeline):
    with pytest.raises(DecoderError, match="by is energy or feature, not 'both'"):
        GuidedDecoder(str(tiny_pipeline), names=NAMES, by="both")
    decoder = GuidedDecoder(str(tiny_pipeline), names=NAMES, by="feature", k=41)
    with pytest.raises(DecoderError, match=r"k is 41, and there are 40 known images.*k=4$"):
        decoder.with_known(known())
    decoder = guided(tiny_pipeline)
    decoder.pipeline.scheduler.register_to_config(prediction_type="sample")
    with pytest.raises(DecoderError, match="predicts noise, not sample"):
        decoder(*INPUTS)
