"""The parts of `fit-decoder`, each against values computed by hand."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest
import torch
from torch import nn

from oodream.data.images import from_array
from oodream.synthesis.fitting.optimise import Fitting, ahead, batch_rows
from oodream.synthesis.fitting.tokenizer import fit_tokenizer
from oodream.synthesis.fitting.unet import NoisyBatch, noisy_batch
from oodream.synthesis.fitting.vae import Posteriors, fit_vae
from tests.helpers.tiny import TINY


def test_weights_decide_what_is_in_a_batch():
    weights = torch.tensor([0.0, 1.0, 3.0])
    rows = torch.cat([batch_rows(weights, 4, 0, "x", step)[0] for step in range(500)])
    shares = rows.bincount(minlength=3) / len(rows)
    assert shares[0] == 0
    assert shares[2].item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(batch_rows(weights, 4, 0, "x", 3)[0], batch_rows(weights, 4, 0, "x", 3)[0])


# Tokenizer


def test_tokenizer_is_clips(tmp_path):
    tokenizer = fit_tokenizer(["red circle", "blue star"] * 20, TINY, tmp_path / "t")
    assert tokenizer.tokenize("A RED  circle") == ["a</w>", "red</w>", "circle</w>"]
    ids = tokenizer("red circle").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.model_max_length == TINY.tokens


def test_the_same_captions_give_the_same_tokenizer(tmp_path):
    """Equally frequent pairs, of which there are many here, are merged in one order."""
    captions = [f"{a}{b}{c} é{c}{a}" for a in "abcdef" for b in "ghijkl" for c in "mnopqr"]
    for i in range(3):
        fit_tokenizer(captions, TINY, tmp_path / str(i))
    first, *others = [(tmp_path / str(i) / "tokenizer.json").read_bytes() for i in range(3)]
    assert others == [first, first]
    assert len(json.loads(first)["added_tokens"]) == 2, "no ending is a special token"


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


WEIGHTS = torch.tensor([1.0, 2.0, 3.0])
ROWS = torch.tensor([[0, 1], [2, 3], [4, 5]])
EMPTY = 6


def posteriors(std: float) -> Posteriors:
    """Image n's latents have the mean n + 1 and a standard deviation."""
    mean = torch.arange(1.0, 4.0)[:, None, None, None].expand(3, 4, 8, 8)
    return Posteriors(mean=mean.half(), std=torch.full_like(mean, std).half())


def batches(
    noising, n: int, *, std: float = 0.0, weights=WEIGHTS, scale: float = 0.5, **options
) -> NoisyBatch:
    """The batches of n steps as one: three images, each with two prompts."""
    config = dataclasses.replace(TINY, **options)
    made = [
        noisy_batch(posteriors(std), ROWS, EMPTY, weights, scale, noising, config, step) for step in range(n)
    ]
    return NoisyBatch(**{name: torch.cat([getattr(b, name) for b in made]) for name in vars(made[0])})


def test_the_target_is_the_velocity(noising):
    """z = sqrt(a) noisy - sqrt(1 - a) v, and with the noise for a target it would be something else."""
    batch = batches(noising, 1, batch=64, drop_caption=0.0)
    assert len(batch.t_B.unique()) > 50
    a = alphas()[batch.t_B][:, None, None, None]
    z = a.sqrt() * batch.noisy_BFHW - (1 - a).sqrt() * batch.velocity_BFHW
    noise = (1 - a).sqrt() * batch.noisy_BFHW + a.sqrt() * batch.velocity_BFHW
    expected = 0.5 * (batch.row_B // 2 + 1)
    torch.testing.assert_close(
        z, expected.double()[:, None, None, None].expand_as(z), atol=1e-5, rtol=0, check_dtype=False
    )
    assert noise.mean().abs() < 0.05
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert set((batch.row_B % 2).tolist()) == {0, 1}, "both templates"


def test_latents_are_sampled_from_their_posterior(noising):
    second = torch.tensor([0.0, 1.0, 0.0])
    batch = batches(noising, 1, batch=64, std=0.3, weights=second, scale=2.0)
    a = alphas()[batch.t_B][:, None, None, None]
    z = a.sqrt() * batch.noisy_BFHW - (1 - a).sqrt() * batch.velocity_BFHW
    assert z.mean().item() == pytest.approx(4, abs=0.02)
    assert z.std().item() == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_captions_are_dropped(noising, share):
    rows = batches(noising, 5, batch=200, drop_caption=share).row_B
    assert (rows == EMPTY).float().mean().item() == pytest.approx(share, abs=0.05 if share == 0.3 else 0)
    assert set(rows.tolist()) <= {*range(7)}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_captions_become_vectors_of_the_cosines_asked_for(noising, share):
    batch = batches(noising, 5, batch=200, splice=share, splice_cosine=0.6)
    spliced = batch.cosine_B > 0
    assert spliced.float().mean().item() == pytest.approx(share, abs=0.05 if share == 0.3 else 0)
    cosines = batch.cosine_B[spliced]
    assert ((cosines >= 0.6) & (cosines <= 1)).all()
    if share:
        assert cosines.mean().item() == pytest.approx(0.8, abs=0.02)
        assert cosines.min() < 0.65 < 0.95 < cosines.max()
    assert batch.noise_BD.shape == (1000, TINY.text_width)
    assert batch.noise_BD.std().item() == pytest.approx(1, abs=0.02)


def test_a_batch_is_its_steps_own(noising):
    first, again = (batches(noising, 2, batch=8) for _ in range(2))
    assert all(torch.equal(x, getattr(again, name)) for name, x in vars(first).items())
    assert not torch.equal(first.noisy_BFHW[:8], first.noisy_BFHW[8:])


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


# A budget of seconds


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def timed(module: nn.Linear, file, seconds: float) -> Fitting:
    return Fitting(module, file, 1000, 0.1, 0.9, 100, seconds)


def run_timed(fit: Fitting, module: nn.Linear, clock: Clock, until: int = 1000) -> list[float]:
    """Trains as `fit_unet` does, with a second for every step; the learning rates of the steps."""
    rates = []
    for step in ahead(lambda step: step, fit.remaining("test")):
        if step == until:
            break
        fit.update(module.weight.square().mean())
        rates.append(fit.optimizer.param_groups[0]["lr"] / 0.1)
        clock.now += 1
    return rates


def test_a_fitting_ends_after_its_seconds_with_a_rate_near_zero(line, tmp_path, clock):
    fit = timed(line, tmp_path / "state", seconds=300)
    rates = run_timed(fit, line, clock)
    assert 299 <= fit.step == len(rates) <= 301
    assert rates[199] == pytest.approx(1)
    assert rates[250] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 0.02
    assert list(timed(line, tmp_path / "state", seconds=300).remaining("test")) == [], "saved at its end"


def test_a_resumed_fitting_goes_on_counting_its_seconds(line, tmp_path, clock):
    run_timed(timed(line, tmp_path / "state", seconds=300), line, clock, until=150)  # saved after 100
    clock.now += 5000  # between the two nothing is trained
    resumed = timed(line, tmp_path / "state", seconds=300)
    assert resumed.step == 100
    assert resumed.spent == pytest.approx(100, abs=1)
    assert run_timed(resumed, line, clock)[-1] < 0.02
    assert 299 <= resumed.step <= 302, "the steps after the last saved state are made again"


def test_a_longer_budget_goes_on_where_a_shorter_one_ended(line, tmp_path, clock):
    run_timed(timed(line, tmp_path / "state", seconds=300), line, clock)
    longer = timed(line, tmp_path / "state", seconds=400)
    rates = run_timed(longer, line, clock)
    assert 399 <= longer.step <= 402
    assert rates[0] == pytest.approx(0.75, abs=0.02)
    assert rates[-1] < 0.02


def test_steps_end_a_fitting_that_has_seconds_left(line, tmp_path, clock):
    fit = Fitting(line, tmp_path / "state", 5, 0.1, 0.9, 100, 1e6)
    assert len(run_timed(fit, line, clock)) == 5


# Batches made ahead


def test_ahead_keeps_the_order_and_makes_one_batch_ahead():
    made: list[int] = []

    def make(step: int) -> int:
        made.append(step)
        return step * step

    used = []
    for square in ahead(make, range(6)):
        used.append(square)
        assert len(made) <= len(used) + 1
    assert used == [0, 1, 4, 9, 16, 25]
    assert made == [*range(6)]
    assert list(ahead(make, [])) == []


def test_the_next_batch_is_made_while_one_is_used():
    begun = threading.Event()

    def make(step: int) -> int:
        if step == 1:
            begun.set()
        return step

    for step in ahead(make, range(3)):
        if step == 0:
            assert begun.wait(10), "the batch of step 1 is not begun before step 0 is done"


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_what_a_batch_raises_reaches_the_loop(bad):
    """And nothing hangs: not at once, not in the middle, not at the last step."""

    def make(step: int) -> int:
        if step == bad:
            raise KeyError(f"step {step}")
        return step

    used: list[int] = []

    def use_all() -> None:
        for step in ahead(make, range(5)):
            used.append(step)

    with pytest.raises(KeyError, match=f"step {bad}"):
        use_all()
    assert used == [*range(bad)]


def test_a_loop_that_stops_early_leaves_no_thread():
    before = threading.active_count()
    for step in ahead(lambda step: step, range(100)):
        if step == 3:
            break
    assert threading.active_count() == before


# The autoencoder


def test_the_loss_of_the_autoencoder_counts_colour(tmp_path):
    """Of the first step, computed again: a gray image stays gray, because differences between the channels
    count.
    """
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (4, 3, 1, 1), generator=g).expand(-1, -1, 32, 32)
    images, weights = from_array("plain", pixels.to(torch.uint8), torch.zeros(4), ("plain",)), torch.ones(4)
    config, cpu = dataclasses.replace(TINY, vae_batch=8), torch.device("cpu")
    _, loss = fit_vae(images, weights, dataclasses.replace(config, vae_steps=1), tmp_path / "one", cpu)
    vae, _ = fit_vae(images, weights, dataclasses.replace(config, vae_steps=0), tmp_path / "none", cpu)
    rows, g = batch_rows(weights, 8, config.seed, "vae", 0)
    x = images.batch(rows).float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=g)
        error = vae.decode(posterior.mean + posterior.std * noise).sample - x
    rest = error.abs().mean() + error.square().mean() + 1e-4 * posterior.kl().mean() / 256
    rest += 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
    colour = 0.5 * error.diff(dim=1).abs().mean()
    assert loss == pytest.approx((rest + colour).item(), rel=0.02)
    assert colour > 0.1 * rest
