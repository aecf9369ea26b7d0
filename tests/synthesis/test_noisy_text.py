"""Noise on the text encoder's states: the U-Net sees the spliced prompt, and noise of the row's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from oodream.core.seeding import generator
from oodream.synthesis.decoders.noisy_text import NoisyTextDecoder
from oodream.synthesis.decoders.stable import StableDecoder
from oodream.synthesis.errors import DecoderError
from tests.helpers.vectors import unit

NAMES = ["circle", "square", "star"]
Y, SEEDS = torch.tensor([0, 1, 2, 1]), torch.tensor([5, 6, 7, 8])


def decoder(source: Path, **options: float) -> NoisyTextDecoder:
    return NoisyTextDecoder(str(source), names=NAMES, tile=4, steps=2, **options)


def test_the_prompt_has_noise_of_each_image_s_own(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, seen = decoder(tiny_pipeline, scale=0.7), []
    z = unit(4, one.book.tokens_CD.shape[1])
    denoised = one._denoised
    monkeypatch.setattr(
        one, "_denoised", lambda prompt, *rest: (seen.append(prompt), denoised(prompt, *rest))[1]
    )
    one(z, Y, SEEDS)
    clean = one.text.splice(z, Y).states_BLD
    (prompt,) = seen
    for b, seed in enumerate(SEEDS.tolist()):
        noise = torch.randn(clean.shape[1:], generator=generator(seed, "text"))
        torch.testing.assert_close(prompt.states_BLD[b], clean[b] + 0.7 * noise)


def test_without_noise_it_draws_as_usual(tiny_pipeline: Path) -> None:
    one, usual = (
        decoder(tiny_pipeline, scale=0.0),
        StableDecoder(str(tiny_pipeline), names=NAMES, tile=4, steps=2),
    )
    z = unit(4, one.book.tokens_CD.shape[1])
    assert torch.equal(one(z, Y, SEEDS).images_B3HW, usual(z, Y, SEEDS).images_B3HW)
    assert len({one.fingerprint, usual.fingerprint, decoder(tiny_pipeline).fingerprint}) == 3


@pytest.mark.parametrize("scale", [-0.1, float("nan")])
def test_a_scale_out_of_its_range(tiny_pipeline: Path, scale: float) -> None:
    with pytest.raises(DecoderError, match="scale is at least 0"):
        decoder(tiny_pipeline, scale=scale)
