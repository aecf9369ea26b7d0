"""Image-to-image against the pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from oodream.core.seeding import generator
from oodream.data.images import from_array
from oodream.synthesis.decoders import stable
from oodream.synthesis.decoders.image_to_image import ImageToImageDecoder
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.known import Known
from tests.helpers.vectors import unit

NAMES = ["circle", "square", "star"]
Y, SEEDS = torch.tensor([0, 1, 2, 1]), torch.tensor([5, 6, 7, 8])


def known() -> Known:
    pixels = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "known"))
    images = from_array("known", pixels, torch.arange(30) % 3, NAMES)
    return Known(images=lambda: images, baseline=torch.nn.Identity)


def decoder(source: Path, **options) -> ImageToImageDecoder:
    return ImageToImageDecoder(str(source), names=NAMES, tile=4, **options).with_known(known())


@pytest.mark.parametrize("scheduler", ["dpm++", "ddim", "euler", "pndm", "unipc"])
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_it_is_image_to_image(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str, strength: float
) -> None:
    monkeypatch.setattr(stable, "multiplies_bf16", lambda device: False)
    one = decoder(tiny_pipeline, scheduler=scheduler, steps=5, strength=strength)
    z = unit(4, one.book.tokens_CD.shape[1])
    parts = one.pipeline.components | {"image_encoder": None}
    reference = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    images = known().images().batch(one.begins_at(Y, SEEDS))
    expected = reference(
        image=one.encode(images).float(),
        prompt_embeds=one.text.splice(z, Y).states_BLD,
        negative_prompt_embeds=one.text.prompt([""]).expand(4).states_BLD,
        generator=[generator(int(s), "image") for s in SEEDS],
        strength=strength,
        num_inference_steps=5,
        guidance_scale=one.guidance,
        output_type="latent",
    ).images
    found = one.latents(z, Y, SEEDS).latents_BFHW
    assert found is not None
    torch.testing.assert_close(found.float(), expected.float(), atol=0.02, rtol=0.01)


def test_the_weaker_the_nearer_to_the_known_image(tiny_pipeline: Path) -> None:
    one = decoder(tiny_pipeline, steps=10, strength=0.1)
    z = unit(4, one.book.tokens_CD.shape[1])
    start = one.encode(known().images().batch(one.begins_at(Y, SEEDS))).float()

    def moved(strength: float) -> float:
        latents = decoder(tiny_pipeline, steps=10, strength=strength).latents(z, Y, SEEDS).latents_BFHW
        assert latents is not None
        return (latents.float() - start).norm().item()

    distances = [moved(strength) for strength in (0.1, 0.4, 0.8)]
    assert distances == sorted(distances)


@pytest.mark.parametrize("strength", [0, -0.1, 1.1, float("nan")])
def test_a_strength_out_of_its_range(tiny_pipeline: Path, strength: float) -> None:
    with pytest.raises(DecoderError, match="strength is above 0 and at most 1"):
        decoder(tiny_pipeline, strength=strength)
