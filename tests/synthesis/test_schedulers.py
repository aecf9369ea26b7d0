"""Schedulers: by seed, with few steps, and refused before any work."""

from __future__ import annotations

import pytest
import torch

from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.schedulers import SCHEDULERS, make_scheduler

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_every_scheduler_draws_by_seed(tiny_pipeline, name):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=4, tile=4, scheduler=name)
    seeds = torch.tensor([1, 2, 3])
    a, b = decoder.plain(["a circle"] * 3, seeds), decoder.plain(["a circle"] * 3, seeds.flip(0)).flip(0)
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    config = decoder.pipeline.scheduler.config
    assert (config.beta_start, config.prediction_type) == (0.00085, "v_prediction")
    assert not config.get("clip_sample")


def test_an_unknown_scheduler_names_the_nearest(tiny_pipeline):
    with pytest.raises(ValueError, match="Did you mean 'ddim'"):
        StableDecoder(str(tiny_pipeline), names=["circle"], scheduler="ddmi")


@pytest.mark.parametrize("name", list(SCHEDULERS))
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_begin_at_the_noise(name, spacing, steps):
    """With SD's own spacing one step began at time 1 of 1000, where noise passes for a picture."""
    scheduler = make_scheduler(name, NOISE | {"timestep_spacing": spacing}, steps)
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_more_steps_keep_the_pipelines_spacing(name):
    config = NOISE | {"timestep_spacing": "leading"}
    assert make_scheduler(name, config, 3).config.timestep_spacing == "leading"


@pytest.mark.parametrize("name", list(SCHEDULERS))
@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_draw_pictures(tiny_pipeline, name, steps):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=steps, tile=2, scheduler=name)
    images = decoder.plain(["a circle"] * 2, torch.tensor([1, 2]))
    assert images.float().std() > 1


@pytest.mark.parametrize(
    ("name", "most"), [(name, 50 if name == "lcm" else 1000) for name in SCHEDULERS], ids=list(SCHEDULERS)
)
def test_as_many_steps_as_a_scheduler_takes(name, most):
    make_scheduler(name, NOISE, most).set_timesteps(most)
    for steps in (0, -1, most + 1):
        with pytest.raises(
            DecoderError, match=rf"takes 1 to {most} steps, not {steps}\. Change decode\.steps"
        ):
            make_scheduler(name, NOISE, steps)
