"""Another autoencoder in place of the VAE, and another resolution: for pictures and for the control alike."""

from __future__ import annotations

import json

import pytest
import torch

from oodream.synthesis.decode import rendering
from oodream.synthesis.decoders.image_to_image import ImageToImageDecoder
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.known import Known
from tests.helpers.vectors import unit

DRAWN = unit(3, 32), torch.zeros(3, dtype=torch.long), torch.arange(3)
CHANNELS = (8, 8, 8)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a tiny autoencoder with random weights."""
    return saved(tmp_path_factory.mktemp("small"), CHANNELS)


def saved(folder, channels, seed=0):
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    blocks = (1,) * len(channels)
    AutoencoderTiny(
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
    ).save_pretrained(folder)
    return folder


def made(folder, **options) -> StableDecoder:
    return StableDecoder(str(folder), names=["circle"], **{"steps": 2, "tile": 4} | options)


def test_pictures_and_reconstructions_go_through_the_autoencoder(tiny_pipeline, small):
    from diffusers import AutoencoderTiny

    plain, other = made(tiny_pipeline), made(tiny_pipeline, vae=str(small), precision="fp32")
    vae = AutoencoderTiny.from_pretrained(small)
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=g)
    with torch.no_grad():
        expected = vae.decode(vae.encode(images.float() / 127.5 - 1).latents).sample
    off = (other.reconstruct(images).float() - (expected.clamp(-1, 1) + 1) * 127.5).abs()
    assert off.max() < 0.6
    latents = other.latents(*DRAWN).latents_BFHW
    assert not torch.equal(other(*DRAWN).images_B3HW, plain(*DRAWN).images_B3HW)
    off = other.pictures(latents).float() - other(*DRAWN).images_B3HW.float()
    assert off.abs().mean() < 1, "but for latents in half precision, the pictures of the latents"
    assert plain.book.space == other.book.space, "vectors stay good"
    assert plain.fingerprint != other.fingerprint


def test_a_picture_by_a_tiny_autoencoder_is_the_same_alone(tiny_pipeline, small):
    decoder = made(tiny_pipeline, vae=str(small))
    z, y, seeds = DRAWN
    alone = torch.cat([decoder(z[[i]], y[[i]], seeds[[i]]).images_B3HW for i in range(3)])
    assert torch.equal(decoder(*DRAWN).images_B3HW, alone)


def test_other_weights_are_another_rendering(tiny_pipeline, small, tmp_path):
    other = saved(tmp_path / "other", CHANNELS, seed=1)
    ways = [rendering(made(tiny_pipeline, vae=str(folder))) for folder in (small, other)]
    assert ways[0] != ways[1]
    assert rendering(made(tiny_pipeline)) == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "There is no autoencoder in"),
        ({"_class_name": "UNet2DModel"}, "holds a UNet2DModel, and one of these is needed: AutoencoderTiny"),
        ({"_class_name": "AutoencoderTiny"}, "cannot be loaded"),
    ],
)
def test_a_folder_without_an_autoencoder_is_refused(tiny_pipeline, tmp_path, config, message):
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DecoderError, match=message):
        made(tiny_pipeline, vae=str(tmp_path))


def test_an_autoencoder_of_another_scale_is_refused(tiny_pipeline, tmp_path):
    with pytest.raises(DecoderError, match=r"of an image's size / 2; this decoder's have 4, of the size / 4"):
        made(tiny_pipeline, vae=str(saved(tmp_path, (8, 8))))


@pytest.mark.parametrize("resolution", [16, 20, 48])
def test_pictures_are_drawn_at_the_resolution_asked_for(tiny_pipeline, resolution):
    decoder = made(tiny_pipeline, resolution=resolution, size=24)
    assert decoder.latents(*DRAWN).latents_BFHW.shape == (3, 4, resolution // 4, resolution // 4)
    assert decoder(*DRAWN).images_B3HW.shape == (3, 3, 24, 24)
    flat = torch.full((1, 3, 24, 24), 90, dtype=torch.uint8)
    assert decoder.encode(flat).shape[2:] == (resolution // 4, resolution // 4)
    assert decoder.fingerprint != made(tiny_pipeline, size=24).fingerprint


def test_a_known_image_begins_at_the_resolution_asked_for(tiny_pipeline, known_shapes):
    decoder = ImageToImageDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=4, resolution=16)
    drawn = decoder.with_known(Known(images=lambda: known_shapes, baseline=torch.nn.Identity))
    assert drawn.latents(*DRAWN).latents_BFHW.shape[2:] == (4, 4)


@pytest.fixture
def known_shapes():
    from oodream.data.images import from_array

    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=g)
    return from_array("known", pixels, torch.zeros(6, dtype=torch.long), ("circle",))


@pytest.mark.parametrize("resolution", [18, -4])
def test_a_resolution_that_latents_have_not_is_refused_before_work(tiny_pipeline, resolution):
    with pytest.raises(DecoderError, match=r"multiple of 4 pixels.*--decode.options resolution="):
        made(tiny_pipeline, resolution=resolution)
