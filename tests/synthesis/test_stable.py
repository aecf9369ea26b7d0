"""Stable Diffusion as a decoder: real, tiny pipelines of both kinds, their schedulers, their limits and their mistakes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from oodream.core import memory
from oodream.core.types import ClassBook
from oodream.synthesis.decoders.stable import SCHEDULERS, DecoderError, StableDecoder


def test_decoder_draws_the_same_image_alone_or_in_company(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle", "star"], steps=3, tile=4)
    z = torch.nn.functional.normalize(
        torch.randn(7, decoder.book.tokens_CD.shape[1], generator=torch.Generator().manual_seed(0)), dim=1
    )
    y, seed = torch.arange(7) % 2, torch.arange(7) + 100
    together = decoder(z, y, seed).images_B3HW
    alone = torch.cat([decoder(z[i : i + 1], y[i : i + 1], seed[i : i + 1]).images_B3HW for i in range(7)])
    backwards = decoder(z.flip(0), y.flip(0), seed.flip(0)).images_B3HW.flip(0)
    assert torch.equal(together, alone)
    assert torch.equal(together, backwards)
    assert together.dtype == torch.uint8
    assert together.shape == (7, 3, 32, 32)


def test_decoded_image_depends_on_its_vector_and_seed(tiny_pipeline):
    """Fails when the splice is removed."""
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=3, tile=4, guidance=5.0)
    z = torch.nn.functional.normalize(
        torch.randn(2, decoder.book.tokens_CD.shape[1], generator=torch.Generator().manual_seed(3)), dim=1
    )
    y = torch.zeros(2, dtype=torch.long)
    same_noise = decoder(z, y, torch.tensor([5, 5])).images_B3HW
    assert not torch.equal(same_noise[0], same_noise[1])
    images = decoder(z[:1].expand(2, -1), y, torch.tensor([1, 2])).images_B3HW
    assert not torch.equal(images[0], images[1])


def test_book_is_the_one_list(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle", "star"])
    assert isinstance(decoder.book, ClassBook)
    assert decoder.book.names == ("circle", "star")
    assert decoder.fingerprint in decoder.book.space


def test_images_leave_at_the_size_asked_for(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2, size=24)
    assert decoder.resolution == 32
    assert decoder.plain(["a circle"], torch.tensor([0])).shape == (1, 3, 24, 24)
    flat = torch.full((1, 3, 24, 24), 90, dtype=torch.uint8)
    assert decoder.reconstruct(flat).shape == (1, 3, 24, 24)


def test_reconstruction_is_the_vae_there_and_back(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], tile=2)
    images = torch.randint(
        0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    vae = decoder.pipeline.vae
    with torch.no_grad():
        expected = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mean).sample
    off = (decoder.reconstruct(images).float() - ((expected.clamp(-1, 1) + 1) * 127.5)).abs()
    assert off.max() < 0.6


@pytest.mark.parametrize("missing", ["vae", "unet", "text_encoder", "tokenizer", "model_index.json"])
def test_a_decoder_with_a_missing_part_is_refused(tiny_pipeline, tmp_path, missing):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "broken"))
    shutil.rmtree(folder / missing) if (folder / missing).is_dir() else (folder / missing).unlink()
    with pytest.raises(DecoderError, match=r"cannot be loaded|not a diffusers pipeline"):
        StableDecoder(str(folder), names=["circle"])


def test_a_pickled_checkpoint_is_refused(tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "pickled"))
    weights = next((folder / "unet").glob("*.safetensors"))
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(DecoderError, match=r"weights of unet are missing or pickled.*save_pretrained"):
        StableDecoder(str(folder), names=["circle"])


# SDXL ------------------------------------------------------------------------------------------------------------------------


def unit(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_xl_splice_equals_overwriting_both_tables(tiny_xl_pipeline):
    """The oracle is diffusers' own `encode_prompt` on a pipeline whose two tables have the class word's rows overwritten."""
    decoder = StableDecoder(str(tiny_xl_pipeline), names=["circle", "star"], tile=2)
    assert decoder.book.tokens_CD.shape == (2, 24 + 40)
    z, pipe = unit(2, 64), decoder.pipeline
    told = decoder.text.splice(z, torch.tensor([0, 1]))
    for c, name in enumerate(decoder.book.names):
        for tokenizer, encoder, part in (
            (pipe.tokenizer, pipe.text_encoder, slice(0, 24)),
            (pipe.tokenizer_2, pipe.text_encoder_2, slice(24, 64)),
        ):
            (token,) = tokenizer(name, add_special_tokens=False).input_ids
            with torch.no_grad():
                row = encoder.get_input_embeddings().weight[token]
                row.copy_(normalize(z[c, part], dim=0) * row.norm())
        states, _, pooled, _ = pipe.encode_prompt(decoder.book.prompts[c], do_classifier_free_guidance=False)
        torch.testing.assert_close(told.states_BLD[c], states[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(told.pooled_BP[c], pooled[0], atol=1e-5, rtol=1e-4)


def test_xl_plain_image_is_diffusers_own(tiny_xl_pipeline):
    """Conditioning, empty prompt and decoding are those of the pipeline called with the prompt itself."""
    from oodream.core.seeding import generator

    decoder = StableDecoder(str(tiny_xl_pipeline), names=["circle"], tile=1, steps=3, scheduler="euler")
    ours = decoder.plain(["a red circle"], torch.tensor([4]))[0]
    noise = torch.randn((1, 4, 8, 8), generator=generator(4, "image"))
    theirs = decoder.pipeline(
        "a red circle", latents=noise, num_inference_steps=3, guidance_scale=3.0, output_type="pt"
    ).images[0]
    assert (ours.float() - theirs.float() * 255).abs().max() <= 0.51


def test_xl_images_are_the_same_alone(tiny_xl_pipeline):
    decoder = StableDecoder(str(tiny_xl_pipeline), names=["circle", "star"], steps=2, tile=4)
    z, y, seed = unit(5, 64), torch.arange(5) % 2, torch.arange(5)
    together = decoder(z, y, seed).images_B3HW
    alone = torch.cat([decoder(z[i : i + 1], y[i : i + 1], seed[i : i + 1]).images_B3HW for i in range(5)])
    assert torch.equal(together, alone)
    assert len(torch.unique(together.flatten(1), dim=0)) == 5


# Schedulers, memory, mistakes ------------------------------------------------------------------------------------------------


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


def test_a_tile_that_is_no_power_of_two_is_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="power of two, not 3"):
        StableDecoder(str(tiny_pipeline), names=["circle"], tile=3)


def small_memory(monkeypatch, decoder: StableDecoder, most: int) -> None:
    """A U-Net that runs out of memory when more than `most` images come at once (with guidance, twice as many rows)."""
    forward = decoder.pipeline.unet.forward

    def limited(sample, *args, **kwargs):
        if len(sample) > 2 * most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(decoder.pipeline.unet, "forward", limited)


def test_out_of_memory_halves_the_tile_and_goes_on(tiny_pipeline, monkeypatch):
    z, y, seed = unit(11, 32), torch.zeros(11, dtype=torch.long), torch.arange(11)
    expected = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)(z, y, seed).images_B3HW
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=8)
    small_memory(monkeypatch, decoder, 2)
    with pytest.warns(UserWarning, match=r"from here on 2 images are drawn together.*--decode.tile 2"):
        images = decoder(z, y, seed).images_B3HW
    assert decoder.tile == 2
    assert torch.equal(images, expected)


def test_when_nothing_fits_it_says_so(tiny_pipeline, monkeypatch):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)
    small_memory(monkeypatch, decoder, 0)
    with (
        pytest.warns(UserWarning, match="here on 1 images"),
        pytest.raises(DecoderError, match="one image of 32 pixels"),
    ):
        decoder.plain(["a circle"], torch.tensor([0]))


def test_other_errors_are_not_taken_for_memory(tiny_pipeline, monkeypatch):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=2)
    monkeypatch.setattr(decoder, "_draw", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        decoder.plain(["a circle"], torch.tensor([0]))


def test_a_pipeline_of_another_family_is_refused(tiny_pipeline, tmp_path):
    folder = Path(shutil.copytree(tiny_pipeline, tmp_path / "other"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(
        DecoderError, match=r"holds a FluxPipeline, and one of these is needed: StableDiffusionPipeline"
    ):
        StableDecoder(str(folder), names=["circle"])


def test_a_text_encoder_without_a_token_table_is_refused(tiny_pipeline, monkeypatch):
    from transformers import CLIPTextModel

    monkeypatch.setattr(CLIPTextModel, "get_input_embeddings", lambda self: None)
    with pytest.raises(DecoderError, match="has no token table"):
        StableDecoder(str(tiny_pipeline), names=["circle"])


def test_a_tile_of_0_is_found_and_stays(tiny_pipeline):
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=0)
    z, y, seed = unit(3, 32), torch.zeros(3, dtype=torch.long), torch.arange(3)
    images = decoder(z, y, seed).images_B3HW
    assert decoder.tile == 64  # this pipeline is tiny
    fixed = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=64)
    assert torch.equal(images, fixed(z, y, seed).images_B3HW)


@pytest.mark.parametrize(("free", "tile"), [(10.0, 1), (25.0, 2), (49.0, 2), (50.0, 4), (1e6, 64)])
def test_the_tile_is_the_largest_that_fits(tiny_pipeline, monkeypatch, free, tile):
    """One image takes 10, every further one 10 more, and a fifth of the memory is left alone."""
    decoder = StableDecoder(str(tiny_pipeline), names=["circle"], steps=2, tile=0)
    needed = iter((10, 20))

    class Watch(memory.Watch):
        def __exit__(self, *error):
            super().__exit__(*error)
            self.most = self.before + next(needed)

    monkeypatch.setattr(memory, "Watch", Watch)
    monkeypatch.setattr(memory, "free", lambda device: free)
    assert decoder.largest_tile() == tile


def test_memory_is_measured():
    with memory.Watch(torch.device("cpu")) as watch:
        held = torch.ones(50_000_000)  # 200 MB
        time.sleep(0.1)
    assert held.sum() > 0
    assert 150e6 < watch.most - watch.before < 400e6
