"""The parts of `fit-decoder`, each against values computed by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from oodream.synthesis.fitting.optimise import Fitting, batch_rows
from oodream.synthesis.fitting.tokenizer import fit_tokenizer
from oodream.synthesis.fitting.unet import noisy_batch
from oodream.synthesis.fitting.vae import Posteriors
from tests.helpers.tiny import TINY


def test_weights_decide_what_is_in_a_batch():
    weights = torch.tensor([0.0, 1.0, 3.0])
    rows = torch.cat([batch_rows(weights, TINY, "x", step)[0] for step in range(500)])
    shares = rows.bincount(minlength=3) / len(rows)
    assert shares[0] == 0
    assert shares[2].item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(batch_rows(weights, TINY, "x", 3)[0], batch_rows(weights, TINY, "x", 3)[0])


# Tokenizer


def test_tokenizer_is_clips(tmp_path):
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, TINY, tmp_path / "t")
    assert tokenizer.tokenize("A RED  circle") == ["a</w>", "red</w>", "circle</w>"]
    ids = tokenizer("red circle").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.model_max_length == TINY.tokens


def test_tokenizer_knows_every_printable_character(tmp_path):
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, TINY, tmp_path / "t")
    for character in map(chr, range(33, 127)):
        ids = tokenizer(f"a{character} {character}a {character}", add_special_tokens=False).input_ids
        assert tokenizer.eos_token_id not in ids  # CLIP's unknown token is its end token
    assert len(set(tokenizer.get_vocab().values())) == len(tokenizer) <= TINY.vocabulary


# The U-Net's batches


@pytest.fixture(scope="module")
def noising():
    from diffusers import DDPMScheduler

    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def alphas() -> torch.Tensor:
    """Products of (1 - beta), beta evenly in its root from 0.00085 to 0.012: Stable Diffusion's schedule."""
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - beta).cumprod(0)


CAPTIONS = ["cat", "dog", "bird"]
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])


def posteriors(std: float) -> Posteriors:
    """Image n's latents have the mean n + 1 and a standard deviation."""
    mean = torch.arange(1.0, 4.0)[:, None, None, None].expand(3, 4, 8, 8)
    return Posteriors(mean=mean.half(), std=torch.full_like(mean, std).half())


def test_the_target_is_the_velocity(noising):
    """z = sqrt(a) noisy - sqrt(1 - a) v, and with the noise for a target it would be something else."""
    config = dataclasses.replace(TINY, batch=64, drop_caption=0.0, templates=("{}", "a {} there"))
    batch = noisy_batch(posteriors(std=0.0), CAPTIONS, WEIGHTS, 0.5, noising, config, step=7)
    assert len(batch.t_B.unique()) > 50
    a = alphas()[batch.t_B][:, None, None, None]
    z = a.sqrt() * batch.noisy_BFHW - (1 - a).sqrt() * batch.velocity_BFHW
    noise = (1 - a).sqrt() * batch.noisy_BFHW + a.sqrt() * batch.velocity_BFHW
    words = [next(word for word in CAPTIONS if word in prompt) for prompt in batch.prompts]
    expected = torch.tensor([0.5 * (CAPTIONS.index(word) + 1) for word in words])
    torch.testing.assert_close(
        z, expected.double()[:, None, None, None].expand_as(z), atol=1e-5, rtol=0, check_dtype=False
    )
    assert noise.mean().abs() < 0.05
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert {prompt.replace(word, "{}") for prompt, word in zip(batch.prompts, words, strict=True)} == {
        "{}",
        "a {} there",
    }


def test_latents_are_sampled_from_their_posterior(noising):
    config = dataclasses.replace(TINY, batch=64)
    batch = noisy_batch(posteriors(std=0.3), CAPTIONS, torch.tensor([0.0, 1.0, 0.0]), 2.0, noising, config, 0)
    a = alphas()[batch.t_B][:, None, None, None]
    z = a.sqrt() * batch.noisy_BFHW - (1 - a).sqrt() * batch.velocity_BFHW
    assert z.mean().item() == pytest.approx(4, abs=0.02)
    assert z.std().item() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_captions_are_dropped(noising, share):
    config = dataclasses.replace(TINY, batch=200, drop_caption=share, templates=("{}",))
    batches = [
        noisy_batch(posteriors(0.1), CAPTIONS, WEIGHTS, 1.0, noising, config, step) for step in range(5)
    ]
    prompts = [prompt for batch in batches for prompt in batch.prompts]
    assert set(prompts) <= {"", *CAPTIONS}
    assert prompts.count("") / len(prompts) == pytest.approx(share, abs=0.05 if share == 0.3 else 0)


def test_scale_is_the_spread_of_weighted_latents():
    """Mean 1, 2, 3 by weights 1, 2, 3: variance 14/6 x ... less its square, and the posterior's own."""
    spread = posteriors(std=0.5).sample_std(WEIGHTS)
    mean = (1 * 1 + 2 * 2 + 3 * 3) / 6
    variance = (1 * 1 + 2 * 4 + 3 * 9) / 6 - mean**2 + 0.25
    assert spread == pytest.approx(variance**0.5, rel=1e-5)


# Steps


@pytest.fixture
def line():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def fitting(module, file, steps=10, ema=0.9, save_every=4, lr=0.1) -> Fitting:
    return Fitting(module, file, steps, lr, ema, save_every)


def steps_of(fit: Fitting, module: nn.Linear, until: int) -> list[torch.Tensor]:
    """The weights after every step, as the optimiser leaves them."""
    seen = []
    for step in fit.remaining("test"):
        if step == until:
            break
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        fit.update((module(x) - x[:, :2]).square().mean())
        seen.append(module.weight.detach().clone())
    return seen


def test_the_moving_average_by_hand(line, tmp_path):
    """Its decay rises as 1 - (1 + n)^-0.8 up to the one that is asked for, so the first step's weights begin
    it.
    """
    fit = fitting(line, tmp_path / "state", ema=0.6)
    weights = steps_of(fit, line, until=10)
    average = weights[0]
    for n, weight in enumerate(weights[1:], start=1):
        decay = min(0.6, 1 - (1 + n) ** -0.8)
        average = decay * average + (1 - decay) * weight
    assert (average - weights[-1]).abs().max() > 1e-3
    with fit.averaged():
        torch.testing.assert_close(line.weight.detach(), average)
    torch.testing.assert_close(line.weight.detach(), weights[-1], rtol=0, atol=0)
    fit.finish()
    torch.testing.assert_close(line.weight.detach(), average)


def test_a_resumed_fitting_goes_on_where_it_was(line, tmp_path):
    import copy

    again = copy.deepcopy(line)
    whole = steps_of(fitting(line, tmp_path / "whole"), line, until=10)
    first = steps_of(fitting(again, tmp_path / "state"), again, until=6)  # saved after 4 and killed after 6
    other = nn.Linear(3, 2)
    resumed = fitting(other, tmp_path / "state")
    assert (resumed.step, list(resumed.remaining("test"))) == (4, [4, 5, 6, 7, 8, 9])
    rest = steps_of(resumed, other, until=10)
    assert len(rest) == 6
    assert all(torch.equal(a, b) for a, b in zip(whole, first[:4] + rest, strict=True))
    assert list(fitting(other, tmp_path / "state").remaining("test")) == []


def test_the_rate_warms_up_and_falls(line, tmp_path):
    fit = fitting(line, tmp_path / "state", steps=900)
    rates = []
    for step in range(900):
        fit.step = step
        rates.append(fit.rate())
    assert rates[0] == pytest.approx(1 / 200)
    assert rates[99] == pytest.approx(0.5)
    assert rates[199:600] == [1.0] * 401
    assert rates[750] == pytest.approx(0.5)
    assert rates[899] == pytest.approx(1 / 300)


def test_a_loss_that_is_not_finite_stops(line, tmp_path):
    fit = fitting(line, tmp_path / "state")
    with pytest.raises(FloatingPointError, match=r"became nan at step 0; lower the learning rate \(0\.1\)"):
        fit.update(line.weight.sum() * torch.nan)
