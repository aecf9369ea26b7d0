"""Stable Diffusion as a decoder: real, tiny pipelines of both kinds; no black pictures."""

from __future__ import annotations

import math

import pytest
import torch

from oodream.core.seeding import generator
from oodream.synthesis.decoders import stable
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError, NotFiniteError
from tests.helpers.vectors import unit


def test_decoded_image_depends_on_its_vector_and_seed(tiny_pipeline):
    """Fails when the splice is removed."""
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=3, tile=4, guidance=5.0)
    z = unit(2, 32, seed=3)
    y = torch.zeros(2, dtype=torch.long)
    same_noise = decoder(z, y, torch.tensor([5, 5])).images_B3HW
    assert not torch.equal(same_noise[0], same_noise[1])
    images = decoder(z[:1].expand(2, -1), y, torch.tensor([1, 2])).images_B3HW
    assert not torch.equal(images[0], images[1])


def test_images_leave_at_the_size_asked_for(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2, size=24)
    assert decoder.resolution == 32
    assert decoder.plain(["a circle"], torch.tensor([0])).shape == (1, 3, 24, 24)
    flat = torch.full((1, 3, 24, 24), 90, dtype=torch.uint8)
    assert decoder.reconstruct(flat).shape == (1, 3, 24, 24)


@pytest.fixture
def in_float32(monkeypatch):
    """Decoders multiply in float32, as diffusers does without being told."""
    monkeypatch.setattr(stable, "multiplies_bf16", lambda device: False)


def test_reconstruction_is_the_vae_there_and_back(tiny_pipeline, in_float32):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], tile=2)
    images = torch.randint(
        0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    vae = decoder.pipeline.vae
    with torch.no_grad():
        expected = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mean).sample
    off = (decoder.reconstruct(images).float() - ((expected.clamp(-1, 1) + 1) * 127.5)).abs()
    assert off.max() < 0.6


def test_xl_plain_image_is_diffusers_own(tiny_xl_pipeline, in_float32):
    """Conditioning, empty prompt and decoding are those of the pipeline called with the prompt itself."""
    decoder = StableDecoder(str(tiny_xl_pipeline), names=["circle"], tile=1, steps=3, scheduler="euler")
    ours = decoder.plain(["a red circle"], torch.tensor([4]))[0]
    noise = torch.randn((1, 4, 8, 8), generator=generator(4, "image"))
    theirs = decoder.pipeline(
        "a red circle", latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="pt"
    ).images[0]
    assert (ours.float() - theirs.float() * 255).abs().max() <= 0.51


def test_images_in_bfloat16_are_nearly_those_in_float32(tiny_pipeline, monkeypatch):
    drawn = []
    for bf16 in (False, True):
        monkeypatch.setattr(stable, "multiplies_bf16", lambda device, answer=bf16: answer)
        decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)
        drawn.append((decoder.fingerprint, decoder.plain(["a circle"] * 4, torch.arange(4)).float()))
    (one, exact), (other, rounded) = drawn
    assert one != other
    assert 0 < (exact - rounded).abs().mean() < 2


def test_fingerprint_and_space(tiny_pipeline, tiny_xl_pipeline):
    """Vectors stay good when an option of the drawing changes, and go stale with the weights."""
    options = {"names": ["circle"], "steps": 3, "size": 24}
    decoder = StableDecoder(str(tiny_pipeline), **options)
    assert StableDecoder(str(tiny_pipeline), **options).fingerprint == decoder.fingerprint
    changes = {"steps": 4, "scheduler": "ddim", "guidance": 2.0, "size": 32}
    others = [StableDecoder(str(tiny_pipeline), **options | {k: v}) for k, v in changes.items()]
    assert len({decoder.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert {other.book.space for other in others} == {decoder.book.space}
    assert StableDecoder(str(tiny_xl_pipeline), **options).book.space != decoder.book.space
    tiled = StableDecoder(str(tiny_pipeline), **options, tile=2)
    assert tiled.fingerprint == decoder.fingerprint


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"tile": 3}, "power of two, not 3"),
        ({"tile": -2}, "power of two, not -2"),
        ({"guidance": -1.0}, "guidance is at least 0"),
        ({"guidance": math.inf}, "guidance is at least 0"),
        ({"steps": 0}, "dpm\\+\\+ takes 1 to 1000 steps, not 0"),
    ],
)
def test_options_out_of_range_are_refused(tiny_pipeline, option, message):
    with pytest.raises(DecoderError, match=message):
        StableDecoder(str(tiny_pipeline), names=["circle"], **option)


def test_the_vector_takes_the_placeholders_place(tiny_pipeline):
    """A prompt may say the class's word twice; a picture of the other place's splice is another one."""
    names, prompts = ["circle", "star"], ["a circle on a circle", "a star on a circle"]
    decoder, other = (
        StableDecoder(str(tiny_pipeline), names=names, prompts=prompts, spans=spans, steps=2, tile=1)
        for spans in ([(2, 8), (2, 6)], [(14, 20), (2, 6)])
    )
    found = StableDecoder(str(tiny_pipeline), names=names, prompts=prompts, steps=2, tile=1)
    arguments = unit(1, 32), torch.tensor([0]), torch.tensor([1])
    assert torch.equal(decoder(*arguments).images_B3HW, found(*arguments).images_B3HW)
    assert not torch.equal(decoder(*arguments).images_B3HW, other(*arguments).images_B3HW)


def spoil(module: torch.nn.Module, row: int) -> None:
    """From here on the module's output for one image of a batch is not a number."""

    def hook(_, __, output):
        output[row] = math.nan
        return output

    module.register_forward_hook(hook)


@pytest.mark.parametrize("part", ["text encoder", "U-Net", "VAE"])
@pytest.mark.parametrize("method", ["call", "latents", "plain"])
def test_what_is_not_finite_stops_with_row_and_part(tiny_pipeline, part, method):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=4)
    pipe = decoder.pipeline
    module, row = {
        "text encoder": (pipe.text_encoder.base_model.final_layer_norm, 1),
        "U-Net": (pipe.unet.conv_out, 1),
        "VAE": (pipe.vae.decoder.conv_out, 1),
    }[part]
    spoil(module, row)
    z, y, seed = unit(6, 32), torch.zeros(6, dtype=torch.long), torch.arange(6)
    work = {
        "call": lambda: decoder(z, y, seed),
        "latents": lambda: decoder.latents(z, y, seed),
        "plain": lambda: decoder.plain(["a circle"] * 6, seed),
    }[method]
    if (part, method) == ("VAE", "latents"):
        assert work().latents_BFHW.isfinite().all()
        return
    with pytest.raises(
        NotFiniteError, match=rf"^Image 1: the {part} of the decoder gave NaN.*float32"
    ) as raised:
        work()
    assert (raised.value.index, raised.value.part) == (1, part)


def test_a_vae_that_is_not_finite_stops_the_rest_too(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], tile=2)
    images = torch.zeros(5, 3, 32, 32, dtype=torch.uint8)
    latents = decoder.encode(images)
    decoder.pipeline.vae.decoder.conv_out.bias.data.fill_(math.inf)
    for work in (lambda: decoder.pictures(latents), lambda: decoder.reconstruct(images)):
        with pytest.raises(NotFiniteError, match=r"^Image 0: the VAE"):
            work()
    spoil(decoder.pipeline.vae.encoder.conv_out, 1)
    for work in (lambda: decoder.encode(images), lambda: decoder.reconstruct(images)):
        with pytest.raises(NotFiniteError, match=r"^Image 1: the VAE"):
            work()


def test_latents_that_float16_does_not_hold_are_refused(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)
    decoder.pipeline.unet.conv_out.weight.data.mul_(1e7)
    arguments = unit(2, 32), torch.zeros(2, dtype=torch.long), torch.arange(2)
    with pytest.raises(
        NotFiniteError, match=r"^Image 0: the U-Net .*compute in float32, as --device cpu does"
    ):
        decoder.latents(*arguments)


def test_a_changed_decoder_draws_as_one_that_was_made_with_these_options(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=3, tile=4)
    z, y, seed = unit(1, 32), torch.zeros(1, dtype=torch.long), torch.tensor([7])
    before = decoder(z, y, seed).images_B3HW
    other = decoder.changed(steps=2, guidance=5.0, tile=1)
    fresh = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, guidance=5.0, tile=1)
    assert torch.equal(other(z, y, seed).images_B3HW, fresh(z, y, seed).images_B3HW)
    assert other.fingerprint == fresh.fingerprint != decoder.fingerprint
    assert torch.equal(decoder(z, y, seed).images_B3HW, before), "the first one stays as it was"
    with pytest.raises(DecoderError, match="guidance"):
        decoder.changed(steps=2, guidance=-1.0, tile=1)


def test_drawing_tells_its_steps_and_ends_between_two(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=4, tile=1)
    z, y, seed = unit(1, 32), torch.zeros(1, dtype=torch.long), torch.tensor([7])
    unwatched, steps = decoder(z, y, seed).images_B3HW, []
    with decoder.watching(lambda done, total: steps.append((done, total))):
        watched = decoder(z, y, seed).images_B3HW
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(watched, unwatched)

    def stop(done: int, total: int) -> None:
        steps.append((done, total))
        raise InterruptedError

    steps.clear()
    with pytest.raises(InterruptedError), decoder.watching(stop):
        decoder(z, y, seed)
    assert steps == [(1, 4)]
    assert torch.equal(decoder(z, y, seed).images_B3HW, unwatched)
    assert len(steps) == 1, "nobody watches any more"
