"""The own loop of denoising: diffusers' pictures, guidance in an interval, and no half that nobody needs."""

from __future__ import annotations

import pytest
import torch

from oodream.core.seeding import generator
from oodream.synthesis.decoders import stable
from oodream.synthesis.decoders.edited import EditedDecoder
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from tests.helpers.vectors import unit

DRAWN = unit(2, 32), torch.zeros(2, dtype=torch.long), torch.arange(2)


@pytest.fixture
def decoder(tiny_pipeline, monkeypatch):
    """Makes decoders of circles that multiply in float32."""
    monkeypatch.setattr(stable, "multiplies_bf16", lambda device: False)

    def make(**options) -> StableDecoder:
        return StableDecoder(str(tiny_pipeline), names=["circle"], **{"tile": 2, "steps": 5} | options)

    return make


def rows_evaluated(decoder: StableDecoder) -> list[int]:
    """How many rows the U-Net sees, call by call, from here on."""
    rows: list[int] = []
    decoder.pipeline.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    return rows


@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("scheduler", ["dpm++", "pndm", "euler", "lcm", "ddim"])
def test_latents_are_those_of_the_pipeline(decoder, scheduler, guidance):
    ours = decoder(scheduler=scheduler, guidance=guidance)
    z, y, seeds = DRAWN
    noise = torch.stack([torch.randn((4, 8, 8), generator=generator(int(s), "image")) for s in seeds])
    theirs = ours.pipeline(
        prompt_embeds=ours.text.splice(z, y).states_BLD,
        negative_prompt_embeds=ours.text.prompt([""]).states_BLD.expand(2, -1, -1),
        latents=noise,
        generator=[generator(int(s), "steps") for s in seeds],
        num_inference_steps=5,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    assert torch.equal(ours.latents(z, y, seeds).latents_BFHW, theirs.half())


def test_outside_of_the_interval_the_prompt_alone_is_drawn(decoder):
    made = decoder(guided_from=0.2, guided_until=0.6)
    rows = rows_evaluated(made)
    made(*DRAWN)
    assert rows == [2, 4, 4, 2, 2], "with five steps, guided are the second and the third"
    assert made.evaluations == 7


def test_the_interval_changes_pictures_and_the_fingerprint(decoder):
    whole, part, nowhere, none = (
        decoder(**options)
        for options in ({}, {"guided_until": 0.5}, {"guided_until": 0.0}, {"guidance": 1.0})
    )
    images = [x(*DRAWN).images_B3HW for x in (whole, part, nowhere, none)]
    assert not torch.equal(images[0], images[1])
    assert torch.equal(images[2], images[3])
    assert len({x.fingerprint for x in (whole, part, nowhere, none)}) == 4


def test_the_whole_interval_is_what_there_was_before(decoder):
    assert decoder(guided_from=0.0, guided_until=1.0).fingerprint == decoder().fingerprint


def test_a_picture_is_the_same_alone_where_guidance_has_an_interval(decoder):
    made = decoder(guided_from=0.2, guided_until=0.6, tile=4)
    z, y, seeds = unit(6, 32), torch.zeros(6, dtype=torch.long), torch.arange(6)
    alone = torch.cat([made(z[i : i + 1], y[:1], seeds[i : i + 1]).images_B3HW for i in range(6)])
    assert torch.equal(made(z, y, seeds).images_B3HW, alone)


def test_guidance_of_one_computes_one_half(decoder):
    made = decoder(guidance=1.0)
    rows = rows_evaluated(made)
    made(*DRAWN)
    assert rows == [2] * 5


@pytest.mark.parametrize("interval", [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.5)])
def test_an_interval_that_is_none_is_refused(decoder, interval):
    with pytest.raises(DecoderError, match="Guidance acts from a share of the trajectory to a later one"):
        decoder(guided_from=interval[0], guided_until=interval[1])


def test_edited_has_no_interval(tiny_pipeline):
    with pytest.raises(DecoderError, match="says itself when it edits"):
        EditedDecoder(str(tiny_pipeline), names=["circle"], guided_until=0.5)
