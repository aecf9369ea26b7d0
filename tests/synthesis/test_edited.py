"""SONA's edits against the definitions, element by element; and where an image begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from oodream.config import DecodeConfig
from oodream.core.seeding import generator
from oodream.data.images import from_array
from oodream.synthesis.decode import make_decoder
from oodream.synthesis.decoders import stable
from oodream.synthesis.decoders.edited import DECAY, EDITED_FROM, KEPT_FROM, MOMENTUM, EditedDecoder, edits
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.known import Known, KnownDecoder, begun_at
from tests.helpers.vectors import unit

NAMES = ["circle", "square", "star"]
LABELS = torch.arange(30) % 3


def known() -> Known:
    pixels = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=generator(0, "known"))
    images = from_array("known", pixels, LABELS, NAMES)
    return Known(images=lambda: images, baseline=torch.nn.Identity)


def edited(source, **options) -> EditedDecoder:
    return EditedDecoder(str(source), names=NAMES, tile=4, **options).with_known(known())


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(stable, "multiplies_bf16", lambda device: False)


def test_edits_are_of_the_smallest_and_the_largest_elements():
    g = generator(0, "test")
    own, other = torch.randn(2, 3, 2, 5, 5, generator=g)
    results = edits(own, other, 0.1, 0.2)
    a, b = own.double().numpy(), other.double().numpy()
    for n in range(3):
        for f in range(2):
            small = np.quantile(np.abs(a[n, f]), 0.1)
            large, others_large = (np.quantile(np.abs(x[n, f]), 0.8) for x in (a, b))
            for i in range(5):
                for j in range(5):
                    x, y = a[n, f, i, j], b[n, f, i, j]
                    expected = (
                        x if abs(x) <= small else 0,
                        -x if abs(x) >= large else 0,
                        y if abs(y) >= others_large and abs(x) > small else 0,
                    )
                    assert np.allclose([r[n, f, i, j] for r in results], expected, atol=1e-6)
    kept, removed, put = ((x != 0).float().mean() for x in results)
    assert abs(kept - 0.1) < 0.05
    assert abs(removed - 0.2) < 0.05
    assert 0.1 < put <= 0.25


def test_edits_begin_by_and_by_and_gather_momentum(tiny_pipeline):
    """One row's way through the steps, against a loop: the momentum grows while nothing is added."""
    decoder = edited(tiny_pipeline, steps=10, guidance=10.0)
    changes = torch.randn(10, 2, 1, 4, 8, 8, generator=generator(0, "test"))
    momentum, expected_momentum = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    for i, (own, other) in enumerate(changes):
        age = (i - 1) / 10
        kept, removed, put = edits(own, other, 0.1, 0.1)
        whole = 10 * (kept + removed + put) + MOMENTUM * expected_momentum
        expected = 5 * (removed + put) if age >= EDITED_FROM else torch.zeros_like(own)
        expected = whole if age >= KEPT_FROM else expected
        if age >= 0:
            expected_momentum = DECAY * expected_momentum + (1 - DECAY) * whole
        edit, momentum = decoder._edited(own, other, momentum, torch.tensor([age]))
        torch.testing.assert_close(edit, expected)
        torch.testing.assert_close(momentum, expected_momentum)


def test_every_image_begins_at_one_of_its_class_and_all_are_begun_at(tiny_pipeline):
    decoder, seeds = edited(tiny_pipeline), torch.arange(300)
    y = seeds % 3
    rows = decoder.begins_at(y, seeds)
    assert torch.equal(LABELS[rows], y)
    assert len(rows.unique()) == 30
    assert torch.equal(decoder.begins_at(y[7:9], seeds[7:9]), rows[7:9])


@pytest.mark.parametrize(
    ("steps", "low", "high", "expected"),
    [
        (10, 0.0, 1.0, range(3, 10)),
        (50, 0.0, 1.0, range(11, 50)),
        (10, 0.5, 0.8, range(5, 8)),
        (2, 0.0, 1.0, [2]),
        (1, 0.0, 0.3, [1]),
        (10, 0.0, 0.1, [3]),
    ],
)
def test_all_numbers_of_steps_are_taken_alike(tiny_pipeline, steps, low, high, expected):
    taken = edited(tiny_pipeline, steps=steps, low=low, high=high).taken(torch.arange(2000))
    assert taken.unique().tolist() == list(expected)
    assert torch.bincount(taken)[list(expected)].min() > 2000 / len(expected) / 2


def test_without_guidance_a_known_image_is_noised_and_denoised(tiny_pipeline, in_float32):
    """By DDIM's own formula, from the step where the image begins; no prompt counts."""
    decoder = edited(tiny_pipeline, steps=5, scheduler="ddim", guidance=0.0)
    z, y, seed = unit(4, 32), torch.tensor([0, 1, 2, 0]), torch.arange(4)
    latents = decoder.latents(z, y, seed).latents_BFHW
    pipe, taken = decoder.pipeline, decoder.taken(seed)
    pipe.scheduler.set_timesteps(5)
    times = pipe.scheduler.timesteps.tolist()
    alphas = [*pipe.scheduler.alphas_cumprod[times].double(), pipe.scheduler.final_alpha_cumprod.double()]
    pixels = known().images().batch(decoder.begins_at(y, seed))
    with torch.no_grad():
        start = pipe.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean * pipe.vae.config.scaling_factor
        for n in range(4):
            first = 5 - int(taken[n])
            noise = torch.randn((1, 4, 8, 8), generator=generator(n, "image"))
            x = alphas[first].sqrt() * start[n : n + 1] + (1 - alphas[first]).sqrt() * noise
            for i in range(first, 5):
                states = decoder._uncond.states_BLD
                v = pipe.unet(x.float(), times[i], encoder_hidden_states=states).sample
                clean = alphas[i].sqrt() * x - (1 - alphas[i]).sqrt() * v
                eps = (1 - alphas[i]).sqrt() * x + alphas[i].sqrt() * v
                x = alphas[i + 1].sqrt() * clean + (1 - alphas[i + 1]).sqrt() * eps
            torch.testing.assert_close(latents[n].float(), x[0].float(), atol=0.02, rtol=0.01)
    assert torch.equal(decoder.latents(-z, y, seed).latents_BFHW, latents)


def test_xl_pipelines_are_edited_too(tiny_xl_pipeline):
    decoder = edited(tiny_xl_pipeline, steps=3, guidance=5.0, scheduler="euler")
    z, y, seed = unit(3, 64), torch.arange(3), torch.arange(3)
    images = decoder(z, y, seed).images_B3HW
    assert torch.equal(decoder(z[1:2], y[1:2], seed[1:2]).images_B3HW[0], images[1])
    assert not torch.equal(decoder(-z, y, seed).images_B3HW, images)


def test_provenance_names_the_image_that_a_row_begins_at(tiny_pipeline):
    from oodream.core.types import SampledVectors

    decoder, y, seed = edited(tiny_pipeline), torch.arange(5) % 3, torch.arange(5)
    zeros = torch.zeros(5, dtype=torch.long)
    vectors = SampledVectors(
        z_MD=unit(5, 32), y_M=y, anchor_M=zeros, knn_M=zeros.float(), seed_M=seed, kind="outlier", space="s"
    )
    files = [f"{row}.png" for row in range(30)]
    begun = begun_at(decoder, vectors, files)
    assert begun == [
        {"anchor": f"{row}.png", "anchor_index": row} for row in decoder.begins_at(y, seed).tolist()
    ]
    plain = stable.StableDecoder(str(tiny_pipeline), names=NAMES)
    assert begun_at(plain, vectors, files) == [{}] * 5


def test_what_it_needs_is_asked_for(tiny_pipeline):
    config = DecodeConfig(decoder="edited", source=str(tiny_pipeline), options={"low": 0.6})
    prompts = [config.prompt.format(name) for name in NAMES]
    with pytest.raises(ValueError, match="'edited' looks at known images: pass known"):
        make_decoder(config, NAMES, prompts, 32, "cpu")
    decoder = make_decoder(config, NAMES, prompts, 32, "cpu", known=known())
    assert isinstance(decoder, KnownDecoder)
    assert not decoder.guided
    assert decoder.low == 0.6
    with pytest.raises(DecoderError, match=r"low must be at most high \(0.5\), not 0.6"):
        make_decoder(replace(config, options={"low": 0.6, "high": 0.5}), NAMES, prompts, 32, "cpu")
    with pytest.raises(ValueError, match="nuisance must be between 0 and 1, not 3"):
        make_decoder(replace(config, options={"nuisance": 3.0}), NAMES, prompts, 32, "cpu")
    alone = EditedDecoder(str(tiny_pipeline), names=NAMES)
    with pytest.raises(ValueError, match="no known images yet"):
        alone(unit(1, 32), torch.tensor([0]), torch.tensor([0]))
